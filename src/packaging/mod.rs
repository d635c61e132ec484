//! Pure: plan and task descriptions, segment index to playlists and manifests.
