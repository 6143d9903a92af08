//! An embeddable replicated map.
