//! A request before it is answered: its checks, its target and route, its token, and its CORS fields.

pub(crate) mod admit;
pub(crate) mod authorize;
pub(crate) mod cors;
pub(crate) mod prepare;
pub(crate) mod reports;
pub(crate) mod route;
pub(crate) mod target;
