//! Registry of metrics, logs.
