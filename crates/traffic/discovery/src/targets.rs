//! A balancer behind a name that a `runtime_client::Client` calls.

use runtime_client::{Target, Targets};
use runtime_kernel::Error;

use crate::balance::{Balancer, Outcome, Picked};
use crate::endpoint::Endpoint;

impl Targets for Balancer {
    fn pick(&self, avoid: Option<&str>) -> Result<Box<dyn Target>, Error> {
        let avoid = avoid.and_then(|authority| Endpoint::parse(authority).ok());
        let picked = self.pick_for(None, avoid.as_ref())?;
        let authority = picked.endpoint().authority();
        Ok(Box::new(Called { picked: Some(picked), authority }))
    }
}

#[derive(Debug)]
struct Called {
    picked: Option<Picked>,
    authority: String,
}

impl Target for Called {
    fn authority(&self) -> &str {
        &self.authority
    }

    fn done(mut self: Box<Self>, went: runtime_client::Went) {
        let Some(picked) = self.picked.take() else { return };
        match went {
            runtime_client::Went::Well => picked.done(Outcome::Success),
            runtime_client::Went::Throttled(wait) => picked.done(Outcome::Throttled(wait)),
            runtime_client::Went::Wrong => picked.done(Outcome::Failure),
            _ => {}
        }
    }
}
