//! The task queue: leases, retries, priorities.
