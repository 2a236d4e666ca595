//! The definition of a saga: its steps, their order, and how each step is undone.

mod builder;
mod fault;
mod hooks;
mod remote;
mod shape;
mod step;
mod step_fns;

pub use builder::{
    AppendOutput, Branches, GroupBuilder, InGroup, Local, SagaBuilder, Single, StepBuilder,
};
pub use fault::SagaFault;
pub(super) use hooks::Hook;
use hooks::Hooks;
pub use remote::{Remote, RemoteBranch, RemoteStep};
pub use shape::{RemoteSpec, Shape, StepShape};
pub(super) use step::Failure;
pub use step::{BranchFn, IntoStepError, StepContext, StepError, StepFn, TakesFn};
pub(super) use step_fns::{InvalidReply, StepOutcome, StepResult, Steps, UndoResult};

use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use step_fns::StepFns;

/// The definition of a saga whose data are `D` and whose steps write through `Tx`.
///
/// A definition is registered under its name and version. Sagas that run finish on the version that
/// they were started with: register the old version beside the new one until none of it is left.
///
/// ```
/// # use outbox_core::saga::Saga;
/// # fn example<D, Tx>(saga: &Saga<D, Tx>) {
/// let shape = saga.shape();
/// println!("{} version {} has {} steps", shape.name, shape.version, shape.steps.len());
/// # }
/// ```
pub struct Saga<D, Tx> {
    shape: Shape,
    faults: Vec<SagaFault>,
    step_fns: Vec<StepFns<D, Tx>>,
    hooks: Hooks<D, Tx>,
}

impl<D, Tx> Saga<D, Tx> {
    /// Starts a definition. The name and the names of its steps are stored: keep them when the code
    /// around them moves.
    pub fn builder(name: impl Into<String>, version: u32) -> SagaBuilder<D, Tx> {
        SagaBuilder::new(name.into(), version)
    }

    /// Gives the definition as data, without its functions.
    #[must_use]
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Gives all faults of the definition; sagas with faults do not start.
    #[must_use]
    pub fn faults(&self) -> &[SagaFault] {
        &self.faults
    }
}

impl<D, Tx> fmt::Debug for Saga<D, Tx> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Saga").field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// A type whose impl block is a saga: implemented by `#[saga]`.
///
/// ```
/// # use outbox_core::saga::{SagaData, SagaSource, Sagas, SagasBuilder};
/// fn with_orders<S: SagaSource, D: SagaData<S::Tx>>(sagas: SagasBuilder<S>) -> SagasBuilder<S> {
///     sagas.register(D::saga()) // `PlaceOrder::saga()`, of the type under `#[saga]`
/// }
/// ```
pub trait SagaData<Tx>: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Gives the definition.
    fn saga() -> Saga<Self, Tx>;
}
