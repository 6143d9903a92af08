//! Hears of elections where they happen: the node reports its role while it takes it up, before the first entry of its
//! term can have brought anybody's vote to the disk by the way.

use std::fmt::Debug;
use std::sync::{Mutex, PoisonError};

use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::Registry;

use crate::ledger::{Book, Elected};

/// Where what was heard is written.
static BOOK: Mutex<Option<Book>> = Mutex::new(None);

/// Begins to listen; once in a process.
pub(crate) fn install() {
    let _installed_before = tracing::subscriber::set_global_default(Registry::default().with(Witness));
}

/// From here on elections are written into `book`, or nowhere.
pub(crate) fn write_into(book: Option<Book>) {
    *BOOK.lock().unwrap_or_else(PoisonError::into_inner) = book;
}

struct Witness;

impl<S: tracing::Subscriber> tracing_subscriber::Layer<S> for Witness {
    fn on_event(&self, event: &tracing::Event<'_>, _context: Context<'_, S>) {
        if event.metadata().target() != "raftmap::node" {
            return;
        }
        let mut role = Role::default();
        event.record(&mut role);
        if !role.leads {
            return;
        }
        let book = BOOK.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(book), Some(term), Some(node)) = (&*book, role.term, role.leader) {
            let at = book.now();
            book.open().elected.push(Elected { at, term, node });
        }
    }
}

#[derive(Default)]
struct Role {
    leads: bool,
    term: Option<u64>,
    leader: Option<u64>,
}

impl Visit for Role {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        let number = || text.chars().filter(char::is_ascii_digit).collect::<String>().parse().ok();
        match field.name() {
            "role" => self.leads = text == "Leader",
            "term" => self.term = number(),
            "leader" => self.leader = number(),
            _ => {}
        }
    }
}
