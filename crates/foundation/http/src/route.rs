//! A route: what it answers, who may call it, and how it describes itself.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use axum::handler::Handler;
use axum::routing::{MethodFilter, MethodRouter, on};
use http::Method;
use schemars::{JsonSchema, Schema, SchemaGenerator};

use crate::router::{Gate, Gated};

type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// One method on one path.
///
/// A route needs a proven principal unless it is [`public`](Self::public), and the scope it names.
///
/// ```
/// use runtime_http::{Json, Result, Route};
///
/// async fn hello() -> Result<Json<String>> {
///     Ok(Json("hello".to_owned()))
/// }
///
/// let route: Route = Route::get("/hello", hello).summary("Says hello").public().answers::<String>(200, "A greeting.");
/// ```
pub struct Route<S = ()> {
    pub(crate) info: RouteInfo,
    pub(crate) handler: MethodRouter<S>,
    pub(crate) gate: Arc<OnceLock<Gated>>,
}

/// What is known of a route without calling it.
#[derive(Clone, Debug)]
pub struct RouteInfo {
    /// The method.
    pub method: Method,
    /// The path, with `{name}` for parameters.
    pub path: Cow<'static, str>,
    /// What it does, in a line.
    pub summary: &'static str,
    /// The group it belongs to.
    pub tag: &'static str,
    /// The scope it needs.
    pub scope: Option<&'static str>,
    /// Whether anybody may call it.
    pub public: bool,
    pub(crate) body: Option<SchemaOf>,
    pub(crate) query: Option<SchemaOf>,
    pub(crate) parameters: Option<SchemaOf>,
    pub(crate) answers: Vec<Answer>,
    pub(crate) problems: Vec<u16>,
    pub(crate) log: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) description: &'static str,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    None,
    Json(SchemaOf),
    Text(&'static str),
}

macro_rules! methods {
    ($($name:ident $method:ident $doc:literal),+ $(,)?) => {$(
        #[doc = $doc]
        pub fn $name<H, T>(path: impl Into<Cow<'static, str>>, handler: H) -> Self
        where
            H: Handler<T, S>,
            T: 'static,
        {
            let gate = Arc::default();
            let handler = Gate { gated: Arc::clone(&gate), inner: handler };
            Self::new(Method::$method, on(MethodFilter::$method, handler), gate, path.into())
        }
    )+};
}

impl<S: Clone + Send + Sync + 'static> Route<S> {
    methods! {
        get GET "A `GET` route; it answers `HEAD` too.",
        post POST "A `POST` route.",
        put PUT "A `PUT` route.",
        patch PATCH "A `PATCH` route.",
        delete DELETE "A `DELETE` route.",
    }

    fn new(
        method: Method,
        handler: MethodRouter<S>,
        gate: Arc<OnceLock<Gated>>,
        path: Cow<'static, str>,
    ) -> Self {
        let info = RouteInfo {
            method,
            path,
            summary: "",
            tag: "",
            scope: None,
            public: false,
            body: None,
            query: None,
            parameters: None,
            answers: Vec::new(),
            problems: Vec::new(),
            log: true,
        };
        Self { info, handler, gate }
    }

    /// What it does, in a line.
    #[must_use]
    pub fn summary(mut self, summary: &'static str) -> Self {
        self.info.summary = summary;
        self
    }

    /// The group it belongs to.
    #[must_use]
    pub fn tag(mut self, tag: &'static str) -> Self {
        self.info.tag = tag;
        self
    }

    /// Anybody may call it.
    #[must_use]
    pub fn public(mut self) -> Self {
        self.info.public = true;
        self
    }

    /// Only a principal with this scope may call it.
    #[must_use]
    pub fn scope(mut self, scope: &'static str) -> Self {
        self.info.scope = Some(scope);
        self
    }

    /// The JSON body it takes.
    #[must_use]
    pub fn takes<T: JsonSchema>(mut self) -> Self {
        self.info.body = Some(SchemaGenerator::subschema_for::<T>);
        self
    }

    /// The query parameters it takes: the properties of an object.
    #[must_use]
    pub fn query<T: JsonSchema>(mut self) -> Self {
        self.info.query = Some(|generator| T::json_schema(generator));
        self
    }

    /// The parameters in its path: the properties of an object. Without it each is described as a string.
    #[must_use]
    pub fn path<T: JsonSchema>(mut self) -> Self {
        self.info.parameters = Some(|generator| T::json_schema(generator));
        self
    }

    /// A JSON answer.
    #[must_use]
    pub fn answers<T: JsonSchema>(mut self, status: u16, description: &'static str) -> Self {
        let content = Content::Json(SchemaGenerator::subschema_for::<T>);
        self.info.answers.push(Answer { status, description, content });
        self
    }

    /// An answer of another media type.
    #[must_use]
    pub fn answers_text(mut self, status: u16, media_type: &'static str, description: &'static str) -> Self {
        self.info.answers.push(Answer { status, description, content: Content::Text(media_type) });
        self
    }

    /// An answer without a body.
    #[must_use]
    pub fn answers_empty(mut self, status: u16, description: &'static str) -> Self {
        self.info.answers.push(Answer { status, description, content: Content::None });
        self
    }

    /// Statuses it answers with problem documents, beside those that follow from its other declarations.
    #[must_use]
    pub fn problems(mut self, statuses: &[u16]) -> Self {
        self.info.problems.extend_from_slice(statuses);
        self
    }

    /// Leaves it out of the access log, as probes are.
    #[must_use]
    pub fn unlogged(mut self) -> Self {
        self.info.log = false;
        self
    }

    /// What is known of it.
    pub fn info(&self) -> &RouteInfo {
        &self.info
    }
}

impl<S> std::fmt::Debug for Route<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Route").field(&self.info).finish()
    }
}
