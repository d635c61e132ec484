//! Object storage: a directory, or S3.
