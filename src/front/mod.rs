//! Sockets, TLS, HTTP/1.1 and 2, limits and drain for every role.
