//! The order in which a request passes the layers, whoever adds them.

use std::fmt;

use axum::Router;

/// When a layer sees a request.
///
/// A request passes the phases in this order; an answer passes them backwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Request id, trace, deadline, panic guard, limits, access log, metrics: the server's own.
    Receive,
    /// Load shedding, limits by address, CORS, security headers.
    Protect,
    /// Proves who is asking. Always before the tenant.
    Identify,
    /// Finds whose data it is; limits by principal and tenant; flags.
    Resolve,
    /// Conditional requests, negotiation, compression, response cache.
    Shape,
    /// The route.
    Handle,
}

impl Phase {
    /// Every phase, in order.
    pub const ALL: [Self; 6] =
        [Self::Receive, Self::Protect, Self::Identify, Self::Resolve, Self::Shape, Self::Handle];

    /// The name in listings.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Receive => "receive",
            Self::Protect => "protect",
            Self::Identify => "identify",
            Self::Resolve => "resolve",
            Self::Shape => "shape",
            Self::Handle => "handle",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

type Apply<S> = Box<dyn FnOnce(Router<S>, &S) -> Router<S> + Send>;

/// Layers, each with its phase and name.
pub struct Stack<S = ()> {
    layers: Vec<(Phase, &'static str, Apply<S>)>,
}

impl<S> Default for Stack<S> {
    fn default() -> Self {
        Self { layers: Vec::new() }
    }
}

impl<S> Stack<S> {
    /// Adds a layer. Within a phase, layers are passed in the order they were added.
    ///
    /// `apply` puts it around a router: `|router, _| router.layer(MyLayer::new())`. It gets the router's state too.
    pub fn add(
        &mut self,
        phase: Phase,
        name: &'static str,
        apply: impl FnOnce(Router<S>, &S) -> Router<S> + Send + 'static,
    ) {
        self.layers.push((phase, name, Box::new(apply)));
    }

    /// Phase and name of every layer, outermost first, the server's own among them.
    pub fn describe(&self) -> Vec<(Phase, &'static str)> {
        let own = crate::receive::PARTS.map(|name| (Phase::Receive, name));
        let mut layers: Vec<_> = self.layers.iter().map(|(phase, name, _)| (*phase, *name)).collect();
        layers.sort_by_key(|(phase, _)| *phase);
        own.into_iter().chain(layers).chain([(Phase::Handle, "route")]).collect()
    }

    pub(crate) fn apply(mut self, router: Router<S>, state: &S) -> Router<S> {
        self.layers.sort_by_key(|(phase, _, _)| *phase);
        // The last layer put around a router is the first a request meets.
        self.layers.into_iter().rev().fold(router, |router, (_, _, apply)| apply(router, state))
    }
}

impl<S> fmt::Debug for Stack<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.describe()).finish()
    }
}
