//! What to do where the log ends: recovery as a table, a story to each case.

use crate::error::{Damage, OpenError};
use crate::record::kind_name;
use crate::segment::HEADER_LEN;
use crate::types::Position;

use super::walk::{AtEnd, Walked};

/// What stands at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// Never written.
    Zero,
    /// Written, but no frame.
    Bad,
}

/// Where the end is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// Where a segment's OPEN belongs.
    Start,
    /// Behind frames of the same segment.
    Inside,
}

/// What the frames around the end know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Witness {
    /// A frame behind the end knows that bytes at the end were synced.
    Promised,
    /// A later segment was begun, so this one was sealed, durably.
    Begun,
    /// Nobody promised anything beyond the end, and something before it is not attested yet.
    Unattested,
    /// Nobody promised anything beyond the end, and all before it is attested.
    Attested,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Synced bytes are damaged.
    Refuse,
    /// The log ends here.
    End(Ending),
}

/// What is to be written at the log's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// SYNCED: what stands before is whole, and nobody has said so.
    Attest,
    /// OPEN: the segment is not begun.
    Open,
    /// Nothing: the last frame says it all.
    Keep,
}

/// The table.
pub(super) fn step(found: Found, place: Place, witness: Witness) -> Step {
    match (found, place, witness) {
        // A bit has rotted, a sector was zeroed, a write went astray: frames behind were built after a sync of this.
        (Found::Zero | Found::Bad, Place::Start | Place::Inside, Witness::Promised) => Step::Refuse,
        // OPEN is written only once the segment before ends with a durable SEAL. This one's is gone.
        (Found::Zero | Found::Bad, Place::Start | Place::Inside, Witness::Begun) => Step::Refuse,
        // The crash came between the sync of the batch that ended with SEAL and the sync of the next one: OPEN was not
        // written yet, was lost in the cache, or is torn.
        (Found::Zero | Found::Bad, Place::Start, Witness::Unattested | Witness::Attested) => {
            Step::End(Ending::Open)
        }
        // A clean end whose SYNCED was lost with the power: the batch is whole, synced or not.
        (Found::Zero, Place::Inside, Witness::Unattested) => Step::End(Ending::Attest),
        // The crash came in the middle of a batch. What is whole of it may stay: every prefix is a state of Raft.
        (Found::Bad, Place::Inside, Witness::Unattested) => Step::End(Ending::Attest),
        // A clean end. Another SYNCED would let a crash loop fill the disk.
        (Found::Zero, Place::Inside, Witness::Attested) => Step::End(Ending::Keep),
        // The crash came in the middle of a batch, of which nothing is whole.
        (Found::Bad, Place::Inside, Witness::Attested) => Step::End(Ending::Keep),
    }
}

/// Looks a walked log up in the table; `Refuse` becomes the error.
pub(super) fn decide(walked: &Walked) -> Result<Ending, OpenError> {
    let found = match walked.at_end {
        AtEnd::Zero => Found::Zero,
        AtEnd::Bad { .. } => Found::Bad,
    };
    let place = match walked.end.offset() == HEADER_LEN {
        true => Place::Start,
        false => Place::Inside,
    };
    let witness = if walked.promise.is_some_and(|(durable, _)| durable > walked.end) && !bug!(4) {
        Witness::Promised
    } else if walked.end.segment() < walked.newest {
        Witness::Begun
    } else if walked.is_attested() {
        Witness::Attested
    } else {
        Witness::Unattested
    };
    match step(found, place, witness) {
        Step::Refuse => Err(OpenError::Damaged(damage(walked))),
        Step::End(ending) => {
            match (found, place, ending) {
                (Found::Bad, Place::Inside, _) => sometimes!("a log ended in the middle of a batch"),
                (_, Place::Start, _) => sometimes!("a log ended before the OPEN of a segment"),
                (_, _, Ending::Keep) => sometimes!("a log ended as it was attested"),
                _ => {}
            }
            // Only now: behind damage there are entries missing of which the frames left do not know.
            walked
                .replay
                .check_whole()
                .map_err(|what| OpenError::damaged(&walked.tail.path, walked.end.offset(), what))?;
            Ok(ending)
        }
    }
}

fn damage(walked: &Walked) -> Damage {
    let (what, entry) = match &walked.at_end {
        AtEnd::Zero => ("zeros instead of a frame".to_owned(), None),
        AtEnd::Bad { kind: None, what, .. } => ((*what).to_owned(), None),
        AtEnd::Bad { kind: Some(kind), position, what } => {
            let entry: Option<Position> = position.filter(|_| *kind == 4);
            (format!("{} frame: {what}", kind_name(*kind)), entry)
        }
    };
    let witness = match walked.promise {
        Some((durable, at)) if durable > walked.end => {
            format!("the frame at {at} knows that all before {durable} was synced")
        }
        Some(_) | None => format!("segment {} was begun behind it", walked.newest),
    };
    let last = walked.replay.state.last;
    let what = format!("{what}, behind entry {last}, in synced bytes ({witness})");
    Damage { path: walked.tail.path.clone(), offset: walked.end.offset(), entry, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_witness_refuses_and_only_an_unattested_end_grows_the_log() {
        for found in [Found::Zero, Found::Bad] {
            for place in [Place::Start, Place::Inside] {
                assert_eq!(step(found, place, Witness::Promised), Step::Refuse);
                assert_eq!(step(found, place, Witness::Begun), Step::Refuse);
            }
            assert_eq!(step(found, Place::Start, Witness::Unattested), Step::End(Ending::Open));
            assert_eq!(step(found, Place::Inside, Witness::Unattested), Step::End(Ending::Attest));
            assert_eq!(step(found, Place::Inside, Witness::Attested), Step::End(Ending::Keep));
        }
    }
}
