//! The operators' listener: health, metrics, status, drain. Never on a public address.
