//! The edge: admit, authorize, lookup, fetch, deliver, record.
