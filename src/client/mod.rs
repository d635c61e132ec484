//! The HTTP and tus client that the programs use among themselves.
