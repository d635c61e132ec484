//! Sockets of TCP connections, and what is layered between them and hyper.

pub(crate) mod instrumented;
pub(crate) mod plaintext;
pub(crate) mod poll_readable;
pub(crate) mod tcp_socket;
