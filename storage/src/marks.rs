//! Marks at rare branches, for the simulated world: `sometimes!("a log waited for a spare")` notes on this thread that the
//! branch was taken, and a long run in which no world ever took it is red. Only with the feature `model`; in every other
//! build nothing is compiled.

/// This branch is taken now and then.
#[cfg(feature = "model")]
#[doc(hidden)]
#[macro_export]
macro_rules! sometimes {
    ($name:literal) => {
        $crate::marks::met($name)
    };
}

/// This branch is taken now and then.
#[cfg(not(feature = "model"))]
#[doc(hidden)]
#[macro_export]
macro_rules! sometimes {
    ($name:literal) => {{}};
}

#[cfg(feature = "model")]
thread_local! {
    /// Nothing is kept on a thread that never asked.
    static MET: std::cell::RefCell<Option<Vec<&'static str>>> = const { std::cell::RefCell::new(None) };
}

/// A branch was taken on this thread.
#[cfg(feature = "model")]
pub fn met(name: &'static str) {
    MET.with_borrow_mut(|met| met.iter_mut().for_each(|met| met.push(name)));
}

/// Hands every mark since the last call to `each`; from the first call on they are kept.
#[cfg(feature = "model")]
pub fn take(each: impl FnMut(&'static str)) {
    MET.with_borrow_mut(|met| met.get_or_insert_default().drain(..).for_each(each));
}
