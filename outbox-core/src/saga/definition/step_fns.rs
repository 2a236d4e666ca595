//! The functions of a definition, behind the types that their values have in the store.

use super::{
    Saga, Shape,
    hooks::Hook,
    step::{BranchFn, Failure, StepContext, StepError, StepFn, TakesFn},
};
use crate::{
    event::{DecodeEvent, Message, NewEvent, OutboxEvent},
    failure::full_text,
    saga::json::{Json, MAX_VALUE},
};
use futures_util::future::BoxFuture;
use serde::{Serialize, de::DeserializeOwned};

type StepFuture<'a> = BoxFuture<'a, Result<Json, StepError>>;
type SequentialFn<D, Cx> = Box<dyn for<'a> Fn(&'a mut D, &'a Cx) -> StepFuture<'a> + Send + Sync>;
/// Reads the saga's data without changing them, so that it may run beside others.
pub(super) type ParallelFn<D, O, Cx> =
    Box<dyn for<'a> Fn(&'a D, &'a Cx) -> BoxFuture<'a, Result<O, StepError>> + Send + Sync>;
type ValueFn<D, Cx> =
    Box<dyn for<'a> Fn(&'a mut D, &'a Json, &'a Cx) -> StepFuture<'a> + Send + Sync>;
type CommandFuture<'a> = BoxFuture<'a, Result<NewEvent, StepError>>;
type CommandFn<D, Cx> = Box<dyn for<'a> Fn(&'a mut D, &'a Cx) -> CommandFuture<'a> + Send + Sync>;
type UndoCommandFn<D, Cx> =
    Box<dyn for<'a> Fn(&'a mut D, Option<&'a Json>, &'a Cx) -> CommandFuture<'a> + Send + Sync>;
type DecodeReply = fn(&Message) -> Result<Json, InvalidReply>;
type Condition<D> = Box<dyn Fn(&D) -> bool + Send + Sync>;

/// The functions of one step.
pub(super) struct StepFns<D, Tx> {
    pub(super) action: Action<D, Tx>,
    pub(super) undo: Option<Undo<D, Tx>>,
    /// Decodes a reply to the step's output.
    pub(super) decode_reply: Option<DecodeReply>,
    pub(super) skip_if: Option<Condition<D>>,
}

/// How a step is undone.
pub(super) enum Undo<D, Tx> {
    Local(ValueFn<D, StepContext<Tx>>),
    Remote(UndoCommandFn<D, StepContext<Tx>>),
}

/// What a step does.
pub(super) enum Action<D, Tx> {
    /// Makes the command for the participant.
    Remote(CommandFn<D, StepContext<Tx>>),
    RemoteBranch(ParallelFn<D, NewEvent, StepContext<Tx>>),
    Step(SequentialFn<D, StepContext<Tx>>),
    Branch(ParallelFn<D, Json, StepContext<Tx>>),
    Merge(ValueFn<D, StepContext<Tx>>),
}

impl<D: 'static, Tx: 'static> Action<D, Tx> {
    pub(super) fn step<O, F>(step: F) -> Self
    where
        O: Serialize + 'static,
        F: for<'a> StepFn<'a, D, O, StepContext<Tx>>,
    {
        fn boxed<D, Cx>(
            f: impl for<'a> Fn(&'a mut D, &'a Cx) -> StepFuture<'a> + Send + Sync + 'static,
        ) -> SequentialFn<D, Cx> {
            Box::new(f)
        }
        Self::Step(boxed(move |data, cx| {
            let work = step.call(data, cx);
            Box::pin(async move { work.await.and_then(|output| encode("the output", &output)) })
        }))
    }

    pub(super) fn remote<C, F>(step: F) -> Self
    where
        C: OutboxEvent + 'static,
        F: for<'a> StepFn<'a, D, C, StepContext<Tx>>,
    {
        fn boxed<D, Cx>(
            f: impl for<'a> Fn(&'a mut D, &'a Cx) -> CommandFuture<'a> + Send + Sync + 'static,
        ) -> CommandFn<D, Cx> {
            Box::new(f)
        }
        Self::Remote(boxed(move |data, cx| {
            let work = step.call(data, cx);
            Box::pin(async move { command(&work.await?) })
        }))
    }

    pub(super) fn remote_branch<C, F>(step: F) -> Self
    where
        C: OutboxEvent + 'static,
        F: for<'a> BranchFn<'a, D, C, StepContext<Tx>>,
    {
        fn boxed<D, Cx>(
            f: impl for<'a> Fn(&'a D, &'a Cx) -> CommandFuture<'a> + Send + Sync + 'static,
        ) -> ParallelFn<D, NewEvent, Cx> {
            Box::new(f)
        }
        Self::RemoteBranch(boxed(move |data, cx| {
            let work = step.call(data, cx);
            Box::pin(async move { command(&work.await?) })
        }))
    }

    pub(super) fn branch<O, F>(step: F) -> Self
    where
        O: Serialize + 'static,
        F: for<'a> BranchFn<'a, D, O, StepContext<Tx>>,
    {
        fn boxed<D, Cx>(
            f: impl for<'a> Fn(&'a D, &'a Cx) -> StepFuture<'a> + Send + Sync + 'static,
        ) -> ParallelFn<D, Json, Cx> {
            Box::new(f)
        }
        Self::Branch(boxed(move |data, cx| {
            let work = step.call(data, cx);
            Box::pin(async move { work.await.and_then(|output| encode("the output", &output)) })
        }))
    }

    pub(super) fn merge<V, O, F>(step: F) -> Self
    where
        V: DeserializeOwned + 'static,
        O: Serialize + 'static,
        F: for<'a> TakesFn<'a, D, V, O, StepContext<Tx>>,
    {
        Self::Merge(with_value("the outputs of the group", step))
    }
}

/// Wraps a function, so that it takes its value in the stored form.
pub(super) fn with_value<D, V, O, Tx, F>(what: &'static str, work: F) -> ValueFn<D, StepContext<Tx>>
where
    D: 'static,
    Tx: 'static,
    V: DeserializeOwned + 'static,
    O: Serialize + 'static,
    F: for<'a> TakesFn<'a, D, V, O, StepContext<Tx>>,
{
    fn boxed<D, Cx>(
        f: impl for<'a> Fn(&'a mut D, &'a Json, &'a Cx) -> StepFuture<'a> + Send + Sync + 'static,
    ) -> ValueFn<D, Cx> {
        Box::new(f)
    }
    boxed(move |data, value, cx| match decode::<V>(what, value) {
        Ok(value) => {
            let work = work.call(data, value, cx);
            Box::pin(async move { work.await.and_then(|output| encode("the output", &output)) })
        }
        Err(error) => Box::pin(async move { Err(error) }),
    })
}

/// Wraps a compensation that takes no output, so that it takes and ignores one.
pub(super) fn without_value<D, Tx, F>(work: F) -> ValueFn<D, StepContext<Tx>>
where
    D: 'static,
    Tx: 'static,
    F: for<'a> StepFn<'a, D, (), StepContext<Tx>>,
{
    fn boxed<D, Cx>(
        f: impl for<'a> Fn(&'a mut D, &'a Json, &'a Cx) -> StepFuture<'a> + Send + Sync + 'static,
    ) -> ValueFn<D, Cx> {
        Box::new(f)
    }
    boxed(move |data, _, cx| {
        let work = work.call(data, cx);
        Box::pin(async move { work.await.and_then(|()| encode("the output", &())) })
    })
}

impl<D: 'static, Tx: 'static> Undo<D, Tx> {
    /// Makes the command that undoes the step, of its output where that is known.
    pub(super) fn remote<O, C, F>(undo: F) -> Self
    where
        O: DeserializeOwned + 'static,
        C: OutboxEvent + 'static,
        F: for<'a> TakesFn<'a, D, Option<O>, C, StepContext<Tx>>,
    {
        fn boxed<D, Cx>(
            f: impl for<'a> Fn(&'a mut D, Option<&'a Json>, &'a Cx) -> CommandFuture<'a>
            + Send
            + Sync
            + 'static,
        ) -> UndoCommandFn<D, Cx> {
            Box::new(f)
        }
        Self::Remote(boxed(move |data, output, cx| {
            match output.map(|o| decode::<O>("the step's output", o)).transpose() {
                Ok(output) => {
                    let work = undo.call(data, output, cx);
                    Box::pin(async move { command(&work.await?) })
                }
                Err(error) => Box::pin(async move { Err(error) }),
            }
        }))
    }

    /// Makes the command that undoes the step, without its output.
    pub(super) fn remote_without_output<C, F>(undo: F) -> Self
    where
        C: OutboxEvent + 'static,
        F: for<'a> StepFn<'a, D, C, StepContext<Tx>>,
    {
        fn boxed<D, Cx>(
            f: impl for<'a> Fn(&'a mut D, Option<&'a Json>, &'a Cx) -> CommandFuture<'a>
            + Send
            + Sync
            + 'static,
        ) -> UndoCommandFn<D, Cx> {
            Box::new(f)
        }
        Self::Remote(boxed(move |data, _, cx| {
            let work = undo.call(data, cx);
            Box::pin(async move { command(&work.await?) })
        }))
    }
}

fn command(event: &dyn OutboxEvent) -> Result<NewEvent, StepError> {
    Ok(NewEvent::encode(event)?)
}

/// Decodes a reply to a step's output of a type.
pub(super) fn decode_reply<R: DecodeEvent + Serialize>(
    message: &Message,
) -> Result<Json, InvalidReply> {
    let reply = R::decode(message).map_err(|e| InvalidReply(full_text(&e)))?;
    let json = Json::of(&reply).map_err(|e| InvalidReply(e.without_values()))?;
    if json.is_too_long() {
        let bytes = json.as_str().len();
        return Err(InvalidReply(format!(
            "it has {bytes} bytes as JSON; at most {MAX_VALUE} are stored"
        )));
    }
    Ok(json)
}

/// Why a reply cannot be decoded, as a text without its content.
#[derive(Debug)]
pub(in crate::saga) struct InvalidReply(pub(in crate::saga) String);

/// The result of an attempt at a step.
pub(in crate::saga) struct StepResult {
    pub(in crate::saga) outcome: StepOutcome,
    /// The data after it; `None` where the step only reads them.
    pub(in crate::saga) data: Option<Json>,
}

/// The outcome of an attempt at a step.
pub(in crate::saga) enum StepOutcome {
    /// The step is done, with this output.
    Output(Json),
    /// The command for the participant.
    Command(Box<NewEvent>),
}

/// The result of a compensation: the data after it, and the command for the participant of a remote
/// step.
pub(in crate::saga) struct UndoResult {
    pub(in crate::saga) data: Json,
    pub(in crate::saga) command: Option<Box<NewEvent>>,
}

/// A definition without the type of its data.
pub(in crate::saga) trait Steps<Tx>: Send + Sync + 'static {
    /// Gives the definition as data.
    fn shape(&self) -> &Shape;

    /// Tells whether a step's condition skips it.
    fn skips(&self, step: usize, data: &Json) -> Result<bool, StepError>;

    /// Runs a step. `outputs` is the list of the outputs of the group before it, for a step that
    /// merges.
    fn run<'a>(
        &'a self,
        step: usize,
        data: &'a Json,
        outputs: &'a Json,
        cx: &'a StepContext<Tx>,
    ) -> BoxFuture<'a, Result<StepResult, StepError>>;

    /// Undoes a step, or makes the command that does.
    fn undo<'a>(
        &'a self,
        step: usize,
        data: &'a Json,
        output: Option<&'a Json>,
        cx: &'a StepContext<Tx>,
    ) -> BoxFuture<'a, Result<UndoResult, StepError>>;

    /// Decodes a reply of success to the output of a remote step.
    fn decode_reply(&self, step: usize, message: &Message) -> Result<Json, InvalidReply>;

    /// Tells whether the definition has a hook.
    fn has(&self, hook: Hook) -> bool;

    /// Runs a hook; does nothing where the definition has none.
    fn call<'a>(
        &'a self,
        hook: Hook,
        data: &'a Json,
        cx: &'a StepContext<Tx>,
    ) -> BoxFuture<'a, Result<(), StepError>>;
}

impl<D, Tx> Steps<Tx> for Saga<D, Tx>
where
    D: Serialize + DeserializeOwned + Send + Sync + 'static,
    Tx: Send + Sync + 'static,
{
    fn shape(&self) -> &Shape {
        &self.shape
    }

    fn skips(&self, step: usize, data: &Json) -> Result<bool, StepError> {
        match &self.step_fns[step].skip_if {
            Some(condition) => Ok(condition(&decode::<D>("the data", data)?)),
            None => Ok(false),
        }
    }

    fn run<'a>(
        &'a self,
        step: usize,
        data: &'a Json,
        outputs: &'a Json,
        cx: &'a StepContext<Tx>,
    ) -> BoxFuture<'a, Result<StepResult, StepError>> {
        Box::pin(async move {
            let mut data: D = decode("the data", data)?;
            let outcome = match &self.step_fns[step].action {
                Action::Step(work) => StepOutcome::Output(work(&mut data, cx).await?),
                Action::Merge(work) => StepOutcome::Output(work(&mut data, outputs, cx).await?),
                Action::Remote(work) => StepOutcome::Command(Box::new(work(&mut data, cx).await?)),
                Action::Branch(work) => StepOutcome::Output(work(&data, cx).await?),
                Action::RemoteBranch(work) => {
                    StepOutcome::Command(Box::new(work(&data, cx).await?))
                }
            };
            let changes =
                !matches!(self.step_fns[step].action, Action::Branch(_) | Action::RemoteBranch(_));
            Ok(StepResult {
                outcome,
                data: if changes { Some(encode("the data", &data)?) } else { None },
            })
        })
    }

    fn undo<'a>(
        &'a self,
        step: usize,
        data: &'a Json,
        output: Option<&'a Json>,
        cx: &'a StepContext<Tx>,
    ) -> BoxFuture<'a, Result<UndoResult, StepError>> {
        Box::pin(async move {
            let mut data: D = decode("the data", data)?;
            let mut command = None;
            match &self.step_fns[step].undo {
                Some(Undo::Local(work)) => {
                    // The output is not known, as where an operator has skipped the step.
                    let null = Json::null();
                    drop(work(&mut data, output.unwrap_or(&null), cx).await?);
                }
                Some(Undo::Remote(work)) => {
                    command = Some(Box::new(work(&mut data, output, cx).await?))
                }
                None => {}
            }
            Ok(UndoResult { data: encode("the data", &data)?, command })
        })
    }

    fn decode_reply(&self, step: usize, message: &Message) -> Result<Json, InvalidReply> {
        let decode_reply = self.step_fns[step].decode_reply;
        decode_reply.map_or_else(|| Ok(Json::null()), |decode| decode(message))
    }

    fn has(&self, hook: Hook) -> bool {
        self.hooks.get(hook).is_some()
    }

    fn call<'a>(
        &'a self,
        hook: Hook,
        data: &'a Json,
        cx: &'a StepContext<Tx>,
    ) -> BoxFuture<'a, Result<(), StepError>> {
        Box::pin(async move {
            let Some(work) = self.hooks.get(hook) else { return Ok(()) };
            let data: D = decode("the data", data)?;
            work(&data, cx).await
        })
    }
}

/// Decodes what is stored. A value that does not decode is no failure of the step: the saga is
/// stuck until an operator decides.
fn decode<T: DeserializeOwned>(what: &str, json: &Json) -> Result<T, StepError> {
    json.read().map_err(|error: serde_json::Error| {
        // Only the position: serde's own text would quote the value.
        let kind = error.classify();
        StepError(Failure::Stop(format!(
            "{what} cannot be read: {kind:?} at column {}",
            error.column()
        )))
    })
}

fn encode<T: Serialize>(what: &str, value: &T) -> Result<Json, StepError> {
    let json = Json::of(value).map_err(|error| {
        // Without the text of the user's `Serialize`, which may quote the value: this text is
        // stored.
        StepError(Failure::Stop(format!("{what} cannot be written: {}", error.without_values())))
    })?;
    if json.is_too_long() {
        let bytes = json.as_str().len();
        return Err(StepError(Failure::Stop(format!(
            "{what} has {bytes} bytes as JSON; at most {MAX_VALUE} are stored"
        ))));
    }
    Ok(json)
}
