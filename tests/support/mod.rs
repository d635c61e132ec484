//! What the stories share: the programs, free ports, temporary directories.
