//! The edge's store of responses: two tiers, one fill for many askers.
