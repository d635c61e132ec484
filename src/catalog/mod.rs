//! Courses, lessons, versions, segments, entitlements, sessions, API keys.
