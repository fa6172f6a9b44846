//! What one run of a target allocates: a counting allocator in front of the system's.
//!
//! An input that makes a parser allocate out of all proportion is a finding like a panic, and so is one that makes it copy the same
//! bytes over and over: the sum of all allocations grows with the square then, whatever the clock says on a busy machine.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What a thread has allocated since it last began to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocated {
    /// Most bytes held at once.
    pub peak: usize,
    /// All bytes ever asked for.
    pub total: usize,
}

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
    static TOTAL: Cell<usize> = const { Cell::new(0) };
}

fn count(size: usize, freed: bool) {
    // While a thread goes away its counters may be gone before its last allocation is.
    let size_signed = isize::try_from(size).unwrap_or(isize::MAX);
    let _ = LIVE.try_with(|live| {
        if freed {
            live.set(live.get().saturating_sub(size_signed));
            return;
        }
        live.set(live.get().saturating_add(size_signed));
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(live.get())));
        let _ = TOTAL.try_with(|total| total.set(total.get().saturating_add(size)));
    });
}

/// What `work` allocates on this thread.
pub fn measure<R>(work: impl FnOnce() -> R) -> (R, Allocated) {
    let before = LIVE.get();
    PEAK.set(before);
    TOTAL.set(0);
    let result = work();
    let peak = usize::try_from(PEAK.get().saturating_sub(before)).unwrap_or(0);
    let total = TOTAL.get();
    (result, Allocated { peak, total })
}

struct Counting;

// Handing out memory is what `unsafe` is for here: every call goes to the system's allocator unchanged.
#[allow(unsafe_code)]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), false);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), false);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        count(layout.size(), true);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // In place or not, what is new is what was asked for.
        count(layout.size(), true);
        count(size, false);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(at, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_and_what_was_asked_for_are_told_apart() {
        let (kept, seen) = measure(|| {
            for _ in 0..10 {
                std::hint::black_box(vec![0u8; 1_000]);
            }
            vec![0u8; 500]
        });
        assert_eq!(kept.len(), 500);
        assert_eq!(
            seen,
            Allocated {
                peak: 1_000,
                total: 10_500
            }
        );
    }
}
