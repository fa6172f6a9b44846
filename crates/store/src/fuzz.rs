//! What the private parsers of this crate promise, for the workspace member `fuzz`.
#![allow(
    clippy::missing_panics_doc,
    reason = "panicking is how a target says what it found"
)]

use crate::StoreError;
use crate::cursor::Position;

/// The cursor of a page as a caller hands it back: one spelling for one place.
pub fn page_cursor(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match Position::decode(&text) {
        Ok(position) => assert_eq!(position.encode(), text),
        Err(e) => assert!(matches!(e, StoreError::Cursor), "{e}"),
    }
}
