//! `lyceum demo`: the supervisor of a whole system on one machine.
