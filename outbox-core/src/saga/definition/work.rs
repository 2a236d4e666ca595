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

type Made<'a> = BoxFuture<'a, Result<Json, StepError>>;
type OnData<D, Cx> = Box<dyn for<'a> Fn(&'a mut D, &'a Cx) -> Made<'a> + Send + Sync>;
/// Reads the data and changes nothing of them.
pub(super) type BesideOthers<D, O, Cx> =
    Box<dyn for<'a> Fn(&'a D, &'a Cx) -> BoxFuture<'a, Result<O, StepError>> + Send + Sync>;
type WithValue<D, Cx> = Box<dyn for<'a> Fn(&'a mut D, &'a Json, &'a Cx) -> Made<'a> + Send + Sync>;
type Command<'a> = BoxFuture<'a, Result<NewEvent, StepError>>;
type AskOnData<D, Cx> = Box<dyn for<'a> Fn(&'a mut D, &'a Cx) -> Command<'a> + Send + Sync>;
type AskWithValue<D, Cx> =
    Box<dyn for<'a> Fn(&'a mut D, Option<&'a Json>, &'a Cx) -> Command<'a> + Send + Sync>;
type ReadAnswer = fn(&Message) -> Result<Json, AnswerFault>;
type Condition<D> = Box<dyn Fn(&D) -> bool + Send + Sync>;

/// The functions of one step.
pub(super) struct Work<D, Tx> {
    pub(super) action: Action<D, Tx>,
    pub(super) undo: Option<Undo<D, Tx>>,
    /// Reads an answer as the step's output.
    pub(super) answer: Option<ReadAnswer>,
    pub(super) skip_if: Option<Condition<D>>,
}

/// How a step is undone.
pub(super) enum Undo<D, Tx> {
    Local(WithValue<D, StepContext<Tx>>),
    Ask(AskWithValue<D, StepContext<Tx>>),
}

/// What a step does.
pub(super) enum Action<D, Tx> {
    /// Makes the command by which others are asked to do it.
    Ask(AskOnData<D, StepContext<Tx>>),
    AskBranch(BesideOthers<D, NewEvent, StepContext<Tx>>),
    Step(OnData<D, StepContext<Tx>>),
    Branch(BesideOthers<D, Json, StepContext<Tx>>),
    Merge(WithValue<D, StepContext<Tx>>),
}

impl<D: 'static, Tx: 'static> Action<D, Tx> {
    pub(super) fn step<O, F>(step: F) -> Self
    where
        O: Serialize + 'static,
        F: for<'a> StepFn<'a, D, O, StepContext<Tx>>,
    {
        fn boxed<D, Cx>(
            f: impl for<'a> Fn(&'a mut D, &'a Cx) -> Made<'a> + Send + Sync + 'static,
        ) -> OnData<D, Cx> {
            Box::new(f)
        }
        Self::Step(boxed(move |data, cx| {
            let work = step.call(data, cx);
            Box::pin(async move { work.await.and_then(|output| written("the output", &output)) })
        }))
    }

    pub(super) fn ask<C, F>(step: F) -> Self
    where
        C: OutboxEvent + 'static,
        F: for<'a> StepFn<'a, D, C, StepContext<Tx>>,
    {
        fn boxed<D, Cx>(
            f: impl for<'a> Fn(&'a mut D, &'a Cx) -> Command<'a> + Send + Sync + 'static,
        ) -> AskOnData<D, Cx> {
            Box::new(f)
        }
        Self::Ask(boxed(move |data, cx| {
            let work = step.call(data, cx);
            Box::pin(async move { command(&work.await?) })
        }))
    }

    pub(super) fn ask_branch<C, F>(step: F) -> Self
    where
        C: OutboxEvent + 'static,
        F: for<'a> BranchFn<'a, D, C, StepContext<Tx>>,
    {
        fn boxed<D, Cx>(
            f: impl for<'a> Fn(&'a D, &'a Cx) -> Command<'a> + Send + Sync + 'static,
        ) -> BesideOthers<D, NewEvent, Cx> {
            Box::new(f)
        }
        Self::AskBranch(boxed(move |data, cx| {
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
            f: impl for<'a> Fn(&'a D, &'a Cx) -> Made<'a> + Send + Sync + 'static,
        ) -> BesideOthers<D, Json, Cx> {
            Box::new(f)
        }
        Self::Branch(boxed(move |data, cx| {
            let work = step.call(data, cx);
            Box::pin(async move { work.await.and_then(|output| written("the output", &output)) })
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

/// Puts a function behind the stored form of the value that it takes.
pub(super) fn with_value<D, V, O, Tx, F>(
    what: &'static str,
    work: F,
) -> WithValue<D, StepContext<Tx>>
where
    D: 'static,
    Tx: 'static,
    V: DeserializeOwned + 'static,
    O: Serialize + 'static,
    F: for<'a> TakesFn<'a, D, V, O, StepContext<Tx>>,
{
    fn boxed<D, Cx>(
        f: impl for<'a> Fn(&'a mut D, &'a Json, &'a Cx) -> Made<'a> + Send + Sync + 'static,
    ) -> WithValue<D, Cx> {
        Box::new(f)
    }
    boxed(move |data, value, cx| match read::<V>(what, value) {
        Ok(value) => {
            let work = work.call(data, value, cx);
            Box::pin(async move { work.await.and_then(|output| written("the output", &output)) })
        }
        Err(error) => Box::pin(async move { Err(error) }),
    })
}

/// Puts a compensation that takes no output behind the form of those that do.
pub(super) fn without_value<D, Tx, F>(work: F) -> WithValue<D, StepContext<Tx>>
where
    D: 'static,
    Tx: 'static,
    F: for<'a> StepFn<'a, D, (), StepContext<Tx>>,
{
    fn boxed<D, Cx>(
        f: impl for<'a> Fn(&'a mut D, &'a Json, &'a Cx) -> Made<'a> + Send + Sync + 'static,
    ) -> WithValue<D, Cx> {
        Box::new(f)
    }
    boxed(move |data, _, cx| {
        let work = work.call(data, cx);
        Box::pin(async move { work.await.and_then(|()| written("the output", &())) })
    })
}

impl<D: 'static, Tx: 'static> Undo<D, Tx> {
    /// Asks others to undo the step, with its output where it is known.
    pub(super) fn ask<O, C, F>(undo: F) -> Self
    where
        O: DeserializeOwned + 'static,
        C: OutboxEvent + 'static,
        F: for<'a> TakesFn<'a, D, Option<O>, C, StepContext<Tx>>,
    {
        fn boxed<D, Cx>(
            f: impl for<'a> Fn(&'a mut D, Option<&'a Json>, &'a Cx) -> Command<'a>
            + Send
            + Sync
            + 'static,
        ) -> AskWithValue<D, Cx> {
            Box::new(f)
        }
        Self::Ask(boxed(move |data, output, cx| {
            match output.map(|o| read::<O>("the step's output", o)).transpose() {
                Ok(output) => {
                    let work = undo.call(data, output, cx);
                    Box::pin(async move { command(&work.await?) })
                }
                Err(error) => Box::pin(async move { Err(error) }),
            }
        }))
    }

    /// Asks others to undo the step, whatever its output is.
    pub(super) fn ask_plain<C, F>(undo: F) -> Self
    where
        C: OutboxEvent + 'static,
        F: for<'a> StepFn<'a, D, C, StepContext<Tx>>,
    {
        fn boxed<D, Cx>(
            f: impl for<'a> Fn(&'a mut D, Option<&'a Json>, &'a Cx) -> Command<'a>
            + Send
            + Sync
            + 'static,
        ) -> AskWithValue<D, Cx> {
            Box::new(f)
        }
        Self::Ask(boxed(move |data, _, cx| {
            let work = undo.call(data, cx);
            Box::pin(async move { command(&work.await?) })
        }))
    }
}

fn command(event: &dyn OutboxEvent) -> Result<NewEvent, StepError> {
    Ok(NewEvent::encode(event)?)
}

/// Reads an answer as a step's output of a type.
pub(super) fn answer<R: DecodeEvent + Serialize>(message: &Message) -> Result<Json, AnswerFault> {
    let reply = R::decode(message).map_err(|e| AnswerFault(full_text(&e)))?;
    let json = Json::of(&reply).map_err(|e| AnswerFault(e.without_values()))?;
    if json.is_too_long() {
        let bytes = json.as_str().len();
        return Err(AnswerFault(format!(
            "it has {bytes} bytes as JSON; at most {MAX_VALUE} are stored"
        )));
    }
    Ok(json)
}

/// Why an answer cannot be read, in words without its content.
#[derive(Debug)]
pub(in crate::saga) struct AnswerFault(pub(in crate::saga) String);

/// What a step came to.
pub(in crate::saga) struct Ran {
    pub(in crate::saga) made: Product,
    /// The data after it, where it could change them.
    pub(in crate::saga) data: Option<Json>,
}

/// What a step has made.
pub(in crate::saga) enum Product {
    /// Its output: it is done.
    Output(Json),
    /// A command for others.
    Command(Box<NewEvent>),
}

/// What a compensation came to: the data after it, and the command for others, where these undo the step.
pub(in crate::saga) struct Undid {
    pub(in crate::saga) data: Json,
    pub(in crate::saga) command: Option<Box<NewEvent>>,
}

/// A definition, whatever its data are.
pub(in crate::saga) trait Steps<Tx>: Send + Sync + 'static {
    /// What plans are made by.
    fn shape(&self) -> &Shape;

    /// Tells whether a step is left out.
    fn leaves_out(&self, step: usize, data: &Json) -> Result<bool, StepError>;

    /// Does a step. `outputs` is the list of what its group returned, for a step that merges.
    fn run<'a>(
        &'a self,
        step: usize,
        data: &'a Json,
        outputs: &'a Json,
        cx: &'a StepContext<Tx>,
    ) -> BoxFuture<'a, Result<Ran, StepError>>;

    /// Undoes a step, or makes the command by which others do.
    fn undo<'a>(
        &'a self,
        step: usize,
        data: &'a Json,
        output: Option<&'a Json>,
        cx: &'a StepContext<Tx>,
    ) -> BoxFuture<'a, Result<Undid, StepError>>;

    /// Reads an answer of success as the output of a step that others are asked to do.
    fn answer(&self, step: usize, message: &Message) -> Result<Json, AnswerFault>;

    /// Tells whether there is a hook for this.
    fn has(&self, hook: Hook) -> bool;

    /// Runs a hook; nothing, where there is none.
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

    fn leaves_out(&self, step: usize, data: &Json) -> Result<bool, StepError> {
        match &self.works[step].skip_if {
            Some(condition) => Ok(condition(&read::<D>("the data", data)?)),
            None => Ok(false),
        }
    }

    fn run<'a>(
        &'a self,
        step: usize,
        data: &'a Json,
        outputs: &'a Json,
        cx: &'a StepContext<Tx>,
    ) -> BoxFuture<'a, Result<Ran, StepError>> {
        Box::pin(async move {
            let mut data: D = read("the data", data)?;
            let made = match &self.works[step].action {
                Action::Step(work) => Product::Output(work(&mut data, cx).await?),
                Action::Merge(work) => Product::Output(work(&mut data, outputs, cx).await?),
                Action::Ask(work) => Product::Command(Box::new(work(&mut data, cx).await?)),
                Action::Branch(work) => Product::Output(work(&data, cx).await?),
                Action::AskBranch(work) => Product::Command(Box::new(work(&data, cx).await?)),
            };
            let changes =
                !matches!(self.works[step].action, Action::Branch(_) | Action::AskBranch(_));
            Ok(Ran { made, data: if changes { Some(written("the data", &data)?) } else { None } })
        })
    }

    fn undo<'a>(
        &'a self,
        step: usize,
        data: &'a Json,
        output: Option<&'a Json>,
        cx: &'a StepContext<Tx>,
    ) -> BoxFuture<'a, Result<Undid, StepError>> {
        Box::pin(async move {
            let mut data: D = read("the data", data)?;
            let mut command = None;
            match &self.works[step].undo {
                Some(Undo::Local(work)) => {
                    // Not known, as after an operator counted the step as done.
                    let null = Json::null();
                    drop(work(&mut data, output.unwrap_or(&null), cx).await?);
                }
                Some(Undo::Ask(work)) => {
                    command = Some(Box::new(work(&mut data, output, cx).await?))
                }
                None => {}
            }
            Ok(Undid { data: written("the data", &data)?, command })
        })
    }

    fn answer(&self, step: usize, message: &Message) -> Result<Json, AnswerFault> {
        self.works[step].answer.map_or_else(|| Ok(Json::null()), |read| read(message))
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
            let data: D = read("the data", data)?;
            work(&data, cx).await
        })
    }
}

/// Reads what is stored. What does not decode is no failure of a step: nothing goes on until somebody looks.
fn read<T: DeserializeOwned>(what: &str, json: &Json) -> Result<T, StepError> {
    json.read().map_err(|error: serde_json::Error| {
        // Where it went wrong, and nothing of the value: serde's own text would quote it.
        let kind = error.classify();
        StepError(Failure::Stop(format!(
            "{what} cannot be read: {kind:?} at column {}",
            error.column()
        )))
    })
}

fn written<T: Serialize>(what: &str, value: &T) -> Result<Json, StepError> {
    let json = Json::of(value).map_err(|error| {
        // Without the text of a `Serialize` of the user's: it would quote the value, and this is stored.
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
