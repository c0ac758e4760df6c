//! What a factory declares that it needs: a tuple of tokens.

use std::any::TypeId;
use std::pin::Pin;
use std::sync::Arc;

use super::token::Key;
use super::{Container, Token};
use crate::Error;

impl Needed {
    pub(super) fn of<T: ?Sized + Send + Sync + 'static>(token: Token<T>) -> Self {
        Self { key: token.key(), type_id: TypeId::of::<T>(), type_name: std::any::type_name::<T>() }
    }
}

mod sealed {
    use super::{Container, Error, Key, Pin, TypeId};

    /// One declared dependency, as the checks see it.
    #[derive(Clone, Copy)]
    pub struct Needed {
        pub(in crate::container) key: Key,
        pub(in crate::container) type_id: TypeId,
        pub(in crate::container) type_name: &'static str,
    }

    /// What the container does with a tuple of tokens.
    pub trait Resolve {
        type Values;
        fn needed(&self) -> Vec<Needed>;
        fn resolve(
            &self,
            container: Container,
        ) -> Pin<Box<dyn Future<Output = Result<Self::Values, Error>> + Send>>;
    }
}

pub(super) use sealed::{Needed, Resolve};

/// A tuple of no to eight tokens. The factory gets the tuple of their values, each an `Arc`, resolved in order.
pub trait Dependencies:
    sealed::Resolve<Values = <Self as Dependencies>::Values> + Send + Sync + 'static
{
    /// The tuple of values.
    type Values: Send + 'static;
}

macro_rules! tuple {
    ($($name:ident $at:tt),*) => {
        impl<$($name: ?Sized + Send + Sync + 'static),*> sealed::Resolve for ($(Token<$name>,)*) {
            type Values = ($(Arc<$name>,)*);

            fn needed(&self) -> Vec<Needed> {
                vec![$(Needed::of(self.$at)),*]
            }

            #[allow(clippy::unused_unit, unused_variables, reason = "the empty tuple needs nothing")]
            fn resolve(
                &self,
                container: Container,
            ) -> Pin<Box<dyn Future<Output = Result<Self::Values, Error>> + Send>> {
                let tokens = *self;
                Box::pin(async move { Ok(($(container.get(tokens.$at).await?,)*)) })
            }
        }

        impl<$($name: ?Sized + Send + Sync + 'static),*> Dependencies for ($(Token<$name>,)*) {
            type Values = ($(Arc<$name>,)*);
        }
    };
}

tuple!();
tuple!(A 0);
tuple!(A 0, B 1);
tuple!(A 0, B 1, C 2);
tuple!(A 0, B 1, C 2, D 3);
tuple!(A 0, B 1, C 2, D 3, E 4);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
tuple!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
