//! Injected bugs, to prove that the simulation finds their kind. Without the feature `simulation` none exists: [`on`] is `false` for
//! the compiler. With it one at a time can be switched on for the whole process.

/// A bug that can be injected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mutant {
    /// A warm instance stays among the free ones when it is claimed, and a claim does not look whether it is somebody's.
    DoubleClaim = 1,
    /// Tickets that waited when the process died are not read back.
    LostTicket,
    /// A record whose write failed is written again under another name.
    RecordTwice,
    /// A session that everybody left is not recorded.
    RecordNever,
    /// Deadlines are looked at three seconds before their time.
    EarlyCull,
    /// Deadlines are looked at six seconds after their time.
    LateCull,
    /// A full fleet with a queue makes room by stopping a claimed instance.
    DeleteClaimed,
    /// What is left over of a session when the process died is not removed.
    OrphanAfterCrash,
    /// What an older incarnation does counts for the present one.
    GenerationUnchecked,
    /// A player's token opens any session.
    ForeignToken,
    /// A full fleet starts one more.
    OverCapacity,
    /// A busy worker is not kept.
    IdleWhileBusy,
}

impl Mutant {
    /// All, with the names they are called by.
    pub const ALL: [(Self, &'static str); 12] = [
        (Self::DoubleClaim, "double claim"),
        (Self::LostTicket, "lost ticket"),
        (Self::RecordTwice, "record twice"),
        (Self::RecordNever, "record never"),
        (Self::EarlyCull, "early cull"),
        (Self::LateCull, "late cull"),
        (Self::DeleteClaimed, "delete of a claimed instance"),
        (Self::OrphanAfterCrash, "orphan after crash"),
        (Self::GenerationUnchecked, "generation not checked"),
        (Self::ForeignToken, "token of another session accepted"),
        (Self::OverCapacity, "capacity exceeded"),
        (Self::IdleWhileBusy, "idle while busy"),
    ];
}

#[cfg(feature = "simulation")]
static ON: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(0);

/// Switches one on, or all off.
#[cfg(feature = "simulation")]
pub fn switch(mutant: Option<Mutant>) {
    let number = mutant.map_or(0, |m| m as u8);
    ON.store(number, std::sync::atomic::Ordering::SeqCst);
}

/// Whether a bug is switched on.
#[cfg(feature = "simulation")]
pub(crate) fn on(mutant: Mutant) -> bool {
    ON.load(std::sync::atomic::Ordering::Relaxed) == mutant as u8
}

/// Whether a bug is switched on: there is none in this build.
#[cfg(not(feature = "simulation"))]
#[inline(always)]
pub(crate) const fn on(_: Mutant) -> bool {
    false
}
