//! The edge's side of the control plane: signing keys, the feed of revocations and purges, and stream leases, all
//! fetched from the origins and kept up to date.

pub(crate) mod control_plane;
mod feed;
pub(crate) mod keys;
mod leases;
pub(crate) mod purge_order;
