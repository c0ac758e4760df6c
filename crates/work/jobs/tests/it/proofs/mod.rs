//! Models of what the SQL store does, every order of steps of which is tried; and of each a broken variant, in which the
//! checker must find the fault.

mod leases;
mod marks;
mod slots;

use stateright::{Checker, HasDiscoveries, Model, Property};

/// Every state that can be reached keeps every property, and what should be possible is.
fn holds<M>(model: M) -> usize
where
    M: Model + Send + Sync + 'static,
    M::State: std::hash::Hash + std::fmt::Debug + Send + Sync + Clone + PartialEq,
    M::Action: std::fmt::Debug + Clone + PartialEq + Send + Sync,
{
    let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
    checker.assert_properties();
    checker.unique_state_count()
}

/// The checker finds that a property does not hold.
fn fails<M>(model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: std::hash::Hash + std::fmt::Debug + Send + Sync + Clone + PartialEq,
    M::Action: std::fmt::Debug + Clone + PartialEq + Send + Sync,
{
    let wanted = HasDiscoveries::AnyOf([property].into());
    let checker = model.checker().threads(2).finish_when(wanted).spawn_bfs().join();
    assert!(checker.discovery(property).is_some(), "nothing wrong with {property:?} was found");
}

/// The name of a property, for lists of them.
type Always<M> = fn(&M, &<M as Model>::State) -> bool;

fn always<M: Model>(properties: &[(&'static str, Always<M>)]) -> Vec<Property<M>> {
    properties.iter().map(|(name, holds)| Property::always(name, *holds)).collect()
}
