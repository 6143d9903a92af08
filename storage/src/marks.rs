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

/// Marks that nobody takes up, as in unit tests, are not kept beyond this many.
#[cfg(feature = "model")]
const KEPT_MAX: usize = 4_096;

#[cfg(feature = "model")]
thread_local! {
    static MET: std::cell::RefCell<Vec<&'static str>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// A branch was taken on this thread.
#[cfg(feature = "model")]
pub fn met(name: &'static str) {
    MET.with_borrow_mut(|met| {
        if met.len() < KEPT_MAX {
            met.push(name);
        }
    });
}

/// Hands every mark since the last call to `each`.
#[cfg(feature = "model")]
pub fn take(each: impl FnMut(&'static str)) {
    MET.with_borrow_mut(|met| met.drain(..).for_each(each));
}
