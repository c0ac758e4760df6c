//! Resolving a cached singleton and opening a scope, beside the containers in use today.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use runtime_kernel::container::{Container, Services, Token};
use runtime_kernel::{Context, Error, Source, SystemClock};

use crate::measure::{interleave, nanos};
use crate::report::{Better, Row};

const WINDOW: Duration = Duration::from_millis(100);

/// What every container holds once and hands out.
pub struct Service(u64);

const SERVICE: Token<Service> = Token::new("bench.service");
const SCOPED: Token<Service> = Token::new("bench.scoped");

macro_rules! fillers {
    ($($name:ident)+) => {
        /// So many others are registered in each, as in a real service.
        $(pub struct $name;)+

        fn register(services: &mut Services) {
            $(services.value(const { Token::<$name>::new(concat!("bench.", stringify!($name))) }, Arc::new($name));)+
        }

        fn add(builder: &mut dill::CatalogBuilder) {
            $(builder.add_value($name);)+
        }
    };
}

fillers! {
    A0 A1 A2 A3 A4 A5 A6 A7 A8 A9 B0 B1 B2 B3 B4 B5 B6 B7 B8 B9 C0 C1 C2 C3 C4 C5 C6 C7 C8 C9
}

/// Resolve and scope.
pub fn rows() -> Vec<Row> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ours = ours(&runtime);
    let mut builder = dill::CatalogBuilder::new();
    builder.add_value(Service(7));
    add(&mut builder);
    let dill = builder.build();
    let shaku = shaku_module::build();

    let context = Arc::new(Context::new(Source::Internal, &SystemClock));
    let mut peek = || nanos(WINDOW, || drop(black_box(ours.peek(SERVICE))));
    let mut get = || {
        runtime.block_on(async {
            // One `block_on` for the whole window: what is measured is the await.
            let mut batch = 1_u64 << 16;
            loop {
                let start = std::time::Instant::now();
                for _ in 0..batch {
                    drop(black_box(ours.get(SERVICE).await.expect("resolved")));
                }
                let elapsed = start.elapsed();
                if elapsed >= WINDOW {
                    return elapsed.as_nanos() as f64 / batch as f64;
                }
                batch *= 2;
            }
        })
    };
    let mut dill_get = || nanos(WINDOW, || drop(black_box(dill.get_one::<Service>().expect("resolved"))));
    let mut shaku_get = || nanos(WINDOW, || drop(black_box(shaku_module::resolve(&shaku))));
    let mut scope = || nanos(WINDOW, || drop(black_box(ours.scope(Arc::clone(&context)))));
    let mut chained = || {
        nanos(WINDOW, || {
            let mut child = dill.builder_chained();
            child.add_value(Arc::clone(&context));
            drop(black_box(child.build()));
        })
    };
    let [peek, get, dill_get, shaku_get, scope, chained] =
        interleave([&mut peek, &mut get, &mut dill_get, &mut shaku_get, &mut scope, &mut chained]);
    let row = |name, ours: &[f64], peer| Row::of("container", name, "ns", Better::Less, ours, peer);
    vec![
        row("cached singleton, `get().await`", &get, ("dill 0.17 get_one", &dill_get)),
        row("cached singleton, `get().await`", &get, ("shaku 0.6 resolve (no run-time graph)", &shaku_get)),
        row("cached singleton, `peek()`", &peek, ("dill 0.17 get_one", &dill_get)),
        row("cached singleton, `peek()`", &peek, ("shaku 0.6 resolve (no run-time graph)", &shaku_get)),
        row("open a scope for a context", &scope, ("dill 0.17 chained catalog", &chained)),
    ]
}

fn ours(runtime: &tokio::runtime::Runtime) -> Container {
    let mut services = Services::new();
    register(&mut services);
    services.singleton(SERVICE, (), |()| async { Ok::<_, Error>(Service(7)) });
    services.scoped(SCOPED, (SERVICE,), |(service,)| async move { Ok::<_, Error>(Service(service.0)) });
    let container = services.build().expect("a sound graph");
    assert_eq!(runtime.block_on(container.get(SERVICE)).expect("built").0, 7);
    container
}

/// shaku puts its graph together at compile time.
mod shaku_module {
    use std::sync::Arc;

    use shaku::{Component, HasComponent, Interface, module};

    pub trait Answers: Interface {
        fn answer(&self) -> u64;
    }

    #[derive(Component)]
    #[shaku(interface = Answers)]
    struct Answering {
        #[shaku(default = 7)]
        answer: u64,
    }

    impl Answers for Answering {
        fn answer(&self) -> u64 {
            self.answer
        }
    }

    module! {
        pub House { components = [Answering], providers = [] }
    }

    pub fn build() -> House {
        let house = House::builder().build();
        assert_eq!(resolve(&house).answer(), 7);
        house
    }

    pub fn resolve(house: &House) -> Arc<dyn Answers> {
        house.resolve()
    }
}
