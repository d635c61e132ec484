//! The origin: uploads, catalogue, playback tokens, task queue, delivery.
