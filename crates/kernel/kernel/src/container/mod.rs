//! Typed tokens, declared dependencies, a graph that is checked before anything is built.

mod cell;
mod check;
mod dependencies;
mod dispose;
mod entry;
mod error;
mod root;
mod scope;
mod services;
mod table;
mod token;

pub use dependencies::Dependencies;
pub use dispose::{Disposal, DisposeReport};
pub use entry::Lifetime;
pub use error::{ContainerError, Problem, RegisteredAt};
pub use root::{Container, Registered};
pub use services::{Registration, Services};
pub use token::Token;

/// The context a scope was opened with. Scoped and transient services may depend on it; nothing else can.
pub const CONTEXT: Token<crate::Context> = Token::new("request.context");
