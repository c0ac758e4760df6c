//! What every [`WorkflowStore`](crate::store::WorkflowStore) promises.
