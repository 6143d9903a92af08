//! By witness: every answer carries its place in the log. Real time must agree with the places, and replaying the
//! writes in their order must give what the reads saw. It trusts the places; the append order does not.

use std::collections::{BTreeMap, BTreeSet};

use super::history::{Call, End, Floor, What};

/// The first thing that cannot be.
pub fn check(calls: &[Call]) -> Result<(), String> {
    real_time(calls)?;
    let mut keys: BTreeMap<&str, Vec<&Call>> = BTreeMap::new();
    for call in calls {
        keys.entry(&call.key).or_default().push(call);
    }
    keys.values().try_for_each(|calls| replay(calls))
}

/// What began after something had returned stands behind it; a read may stand at the same place.
fn real_time(calls: &[Call]) -> Result<(), String> {
    let steps = calls.iter().filter_map(|call| Some((call.returned?, call.index()?))).collect();
    let floor = Floor::new(steps);
    let mut places = BTreeSet::new();
    for call in calls {
        let Some(index) = call.index() else { continue };
        if call.is_write() && !places.insert(index) {
            return Err(format!("two writes at place {index}: {call:?}"));
        }
        let least = floor.before(call.invoked) + u64::from(call.is_write());
        if index < least {
            return Err(format!(
                "at place {index}, though {least} had been reached before it began: {call:?}"
            ));
        }
    }
    Ok(())
}

/// A key as its known writes leave it.
#[derive(Default)]
struct Known {
    version: u64,
    value: Option<String>,
}

fn replay(calls: &[&Call]) -> Result<(), String> {
    let unknown: BTreeSet<&str> = calls.iter().filter_map(|call| maybe(call)).collect();
    let mut placed: Vec<&&Call> = calls.iter().filter(|call| call.index().is_some()).collect();
    // A read of place n sees the write at n.
    placed.sort_by_key(|call| (call.index(), !call.is_write()));
    let mut known = Known::default();
    for call in placed {
        match &call.end {
            End::Written { index } => {
                if let What::Compare { version, .. } = call.what
                    && !known.may_have(version, &unknown)
                {
                    return Err(format!("swapped {version}, it was {}: {call:?}", known.current()));
                }
                known.write(&call.what, *index);
            }
            End::Mismatch { current, .. } if !known.may_have(*current, &unknown) => {
                return Err(format!("compared with {current}, it was {}: {call:?}", known.current()));
            }
            End::Mismatch { .. } => {}
            End::Read { index, found } => {
                known.read(*index, found.as_ref(), &unknown).map_err(|error| format!("{error}: {call:?}"))?
            }
            End::Unknown | End::NotDone => {}
        }
    }
    Ok(())
}

/// The token or value of a write that may or may not have happened.
fn maybe(call: &Call) -> Option<&str> {
    if call.end != End::Unknown {
        return None;
    }
    match &call.what {
        What::Append { token } => Some(token),
        What::Put { value } | What::Compare { value, .. } => Some(value),
        What::Delete => Some(""),
        What::Read => None,
    }
}

impl Known {
    /// The version a comparison finds: 0 where nothing is.
    fn current(&self) -> u64 {
        self.value.as_ref().map_or(0, |_| self.version)
    }

    /// Whether the key may have this version, with what is unknown.
    fn may_have(&self, version: u64, unknown: &BTreeSet<&str>) -> bool {
        version == self.current() || !unknown.is_empty() && (version == 0 || version > self.version)
    }

    fn write(&mut self, what: &What, index: u64) {
        self.version = index;
        match what {
            What::Append { token } => self.value.get_or_insert_default().push_str(token),
            What::Put { value } | What::Compare { value, .. } => self.value = Some(value.clone()),
            What::Delete => self.value = None,
            What::Read => {}
        }
    }

    fn read(
        &mut self,
        index: u64,
        found: Option<&(u64, String)>,
        unknown: &BTreeSet<&str>,
    ) -> Result<(), String> {
        let Some((version, value)) = found else {
            return match &self.value {
                Some(_) if !unknown.contains("") => {
                    Err(format!("absent, version {} was there", self.version))
                }
                Some(_) | None => Ok(()),
            };
        };
        if *version > index {
            return Err(format!("version {version} is newer than the state it was read from"));
        }
        if *version == self.version && self.value.as_ref() == Some(value) {
            return Ok(());
        }
        if *version < self.version {
            return Err(format!("version {version} is stale, {} was there", self.version));
        }
        self.explain(value, unknown)?;
        // From here on the unknown write is known.
        (self.version, self.value) = (*version, Some(value.clone()));
        Ok(())
    }

    /// What is there beyond the known can only be of writes with an unknown end.
    fn explain(&self, value: &str, unknown: &BTreeSet<&str>) -> Result<(), String> {
        if unknown.contains(value) {
            return Ok(());
        }
        let known: Vec<&str> = self.value.as_deref().unwrap_or_default().split_inclusive(';').collect();
        let mut expected = known.iter().peekable();
        for token in value.split_inclusive(';') {
            if expected.peek() == Some(&&token) {
                expected.next();
            } else if !unknown.contains(token) {
                return Err(format!("{token} is there and should not be, known is {known:?}"));
            }
        }
        match expected.next() {
            None => Ok(()),
            Some(token) => Err(format!("{token} is missing")),
        }
    }
}
