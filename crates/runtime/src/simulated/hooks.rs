//! What a test lets happen in the simulated world.

use bytes::Bytes;
use spawnpoint_core::InstanceId;
use spawnpoint_core::audit::Holding;
use spawnpoint_core::session::Exit;

use super::SimulatedRuntime;
use super::script::End;
use crate::RuntimeError;

/// Hooks for tests. They act on the world itself, whoever owns it, and do nothing to instances that are not there.
impl SimulatedRuntime {
    /// The game ends so, now.
    pub fn crash(&self, id: InstanceId, end: End) {
        self.world.inner().exits(id, end);
    }

    /// The game ends with exactly this exit.
    pub fn exit(&self, id: InstanceId, exit: Exit) {
        self.world.inner().exited(id, exit);
    }

    /// The game is over by itself: exit 0.
    pub fn finish(&self, id: InstanceId) {
        self.crash(id, End::Code(0));
    }

    /// The next order fails so and nothing is done; several are used up in turn.
    pub fn fail_next_order(&self, error: RuntimeError) {
        self.world.inner().failing_orders.push_back(error);
    }

    /// Something is there that belongs to no instance, or to one that is not there.
    pub fn leave_behind(&self, stray: Holding) {
        self.world.inner().strays.push(stray);
    }

    /// The game writes this to its log.
    pub fn write_log(&self, id: InstanceId, text: &str) {
        self.world.inner().write_log(id, text.as_bytes());
    }

    /// The game has left this in its results file.
    pub fn write_results(&self, id: InstanceId, results: impl Into<Bytes>) {
        let results = results.into();
        self.world.inner().set_results(id, Some(results));
    }

    /// The session file as the game would read it.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`].
    pub fn session_file(&self, id: InstanceId) -> Result<Option<Bytes>, RuntimeError> {
        self.world.session_file(id)
    }

    /// The variables that only this instance was given.
    ///
    /// # Errors
    /// [`RuntimeError::NotFound`].
    pub fn environment(
        &self,
        id: InstanceId,
    ) -> Result<std::collections::BTreeMap<String, String>, RuntimeError> {
        self.world.environment(id)
    }

    /// Nobody can see any instance until [`Self::regain_watch`]: all that is not known to be over is unknown. Games go on.
    pub fn lose_watch(&self) {
        let mut w = self.world.inner();
        let now = w.clock.now();
        w.lose_all(Some(now));
    }

    /// All can be seen again.
    pub fn regain_watch(&self) {
        self.world.inner().lose_all(None);
    }

    /// This one instance cannot be seen (its supervisor cannot be reached) until [`Self::regain`]. The game goes on.
    pub fn lose(&self, id: InstanceId) {
        let mut w = self.world.inner();
        let now = w.clock.now();
        w.lose(id, Some(now));
    }

    /// It can be seen again.
    pub fn regain(&self, id: InstanceId) {
        self.world.inner().lose(id, None);
    }
}
