//! tus 1.0 uploads as a life cycle over the store.
