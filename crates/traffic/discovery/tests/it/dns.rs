//! Endpoints from a name server.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::{A, AAAA, CNAME, SRV};
use hickory_resolver::proto::rr::{Name, RData, Record, RecordType};
use runtime_discovery::{Dns, Service};
use runtime_kernel::ManualClock;
use tokio::net::UdpSocket;

use super::sources::authorities;

type Zone = Arc<Mutex<HashMap<(String, RecordType), Vec<(u32, RData)>>>>;

/// A name server of what the zone holds at the moment; any other name does not exist, and of `broken.test` it does not know
/// the IPv6 addresses.
async fn server(zone: &Zone) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    let zone = Arc::clone(zone);
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((size, from)) = socket.recv_from(&mut buffer).await {
            let query = Message::from_vec(&buffer[..size]).unwrap();
            let mut answer = Message::response(query.metadata.id, query.metadata.op_code);
            answer.metadata.recursion_available = true;
            let asked = query.queries[0].clone();
            let name = asked.name().to_utf8();
            {
                let zone = zone.lock().unwrap();
                let found = zone.get(&(name.clone(), asked.query_type()));
                if !zone.keys().any(|(known, _)| *known == name) {
                    answer.metadata.response_code = ResponseCode::NXDomain;
                }
                if (name.as_str(), asked.query_type()) == ("broken.test.", RecordType::AAAA) {
                    answer.metadata.response_code = ResponseCode::ServFail;
                }
                let mut owner = asked.name().clone();
                for (ttl, data) in found.into_iter().flatten() {
                    answer.add_answer(Record::from_rdata(owner.clone(), *ttl, data.clone()));
                    if let RData::CNAME(target) = data {
                        owner = target.0.clone();
                    }
                }
            }
            answer.queries.push(asked);
            socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
        }
    });
    address
}

fn a(address: &str) -> RData {
    RData::A(A(address.parse().unwrap()))
}

fn aaaa(address: &str) -> RData {
    RData::AAAA(AAAA(address.parse().unwrap()))
}

fn srv(priority: u16, weight: u16, port: u16, target: &str) -> RData {
    RData::SRV(SRV::new(priority, weight, port, Name::from_utf8(target).unwrap()))
}

fn cname(target: &str) -> RData {
    RData::CNAME(CNAME(Name::from_utf8(target).unwrap()))
}

fn set(zone: &Zone, name: &str, kind: RecordType, records: Vec<(u32, RData)>) {
    zone.lock().unwrap().insert((name.to_owned(), kind), records);
}

async fn turn(clock: &ManualClock, time: Duration) {
    while clock.sleepers() == 0 {
        tokio::task::yield_now().await;
    }
    clock.advance(time);
}

#[tokio::test]
async fn addresses_of_both_families_are_looked_up_again_when_their_time_is_over() {
    let (zone, clock) = (Zone::default(), ManualClock::new());
    set(&zone, "orders.test.", RecordType::A, vec![(30, a("10.0.0.2")), (60, a("10.0.0.1"))]);
    set(&zone, "orders.test.", RecordType::AAAA, vec![(60, aaaa("2001:db8::1"))]);
    let dns = Dns::addresses("orders.test", 8080, Arc::new(clock.clone())).unwrap();
    let dns = dns.server(server(&zone).await).unwrap();
    let (mut service, watching) = Service::new("orders", dns, Arc::new(clock.clone()));
    tokio::spawn(watching.run());
    let told = service.ready().await.unwrap();
    assert_eq!(authorities(&told), ["10.0.0.1:8080", "10.0.0.2:8080", "[2001:db8::1]:8080"]);

    set(&zone, "orders.test.", RecordType::A, vec![(30, a("10.0.0.3"))]);
    set(&zone, "orders.test.", RecordType::AAAA, vec![]);
    turn(&clock, Duration::from_secs(30)).await;
    let known = service.changed().await.unwrap();
    assert_eq!(authorities(&known.endpoints.unwrap()), ["10.0.0.3:8080"], "one family is enough");

    zone.lock().unwrap().clear();
    turn(&clock, Duration::from_secs(30)).await;
    let known = service.changed().await.unwrap();
    assert_eq!(authorities(&known.endpoints.unwrap()), ["10.0.0.3:8080"], "the last that was known");
    assert!(known.stale.unwrap().contains("orders.test"));
}

#[tokio::test]
async fn services_bring_their_ports_and_weights_and_only_the_best_priority_counts() {
    let (zone, clock) = (Zone::default(), ManualClock::new());
    let name = "_http._tcp.orders.test.";
    let records = vec![
        (60, srv(1, 5, 8001, "one.test.")),
        (60, srv(1, 0, 8002, "two.test.")),
        (60, srv(2, 9, 8003, "spare.test.")),
    ];
    set(&zone, name, RecordType::SRV, records);
    set(&zone, "one.test.", RecordType::A, vec![(60, a("10.0.0.1"))]);
    set(&zone, "two.test.", RecordType::AAAA, vec![(60, aaaa("2001:db8::2"))]);
    set(&zone, "spare.test.", RecordType::A, vec![(60, a("10.0.0.9"))]);
    let dns = Dns::services("_http._tcp.orders.test", Arc::new(clock.clone())).unwrap();
    let dns = dns.server(server(&zone).await).unwrap();
    let (mut service, watching) = Service::new("orders", dns, Arc::new(clock.clone()));
    tokio::spawn(watching.run());
    let told: Vec<_> = service.ready().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["10.0.0.1:8001;weight=5", "[2001:db8::2]:8002"]);
}

#[tokio::test]
async fn a_target_without_addresses_takes_none_of_the_others_with_it() {
    let (zone, clock) = (Zone::default(), ManualClock::new());
    let name = "_http._tcp.orders.test.";
    let targets = |one| vec![(60, srv(1, 1, 8001, one)), (60, srv(1, 1, 8002, "two.test."))];
    set(&zone, name, RecordType::SRV, targets("gone.test."));
    set(&zone, "two.test.", RecordType::A, vec![(60, a("10.0.0.2"))]);
    let dns = Dns::services(name, Arc::new(clock.clone())).unwrap();
    let dns = dns.server(server(&zone).await).unwrap();
    let (mut service, watching) = Service::new("orders", dns, Arc::new(clock.clone()));
    tokio::spawn(watching.run());
    let known = service.changed().await.unwrap();
    assert_eq!(
        (authorities(&known.endpoints.unwrap_or_default()), known.stale),
        (vec!["10.0.0.2:8002".to_owned()], None)
    );

    set(&zone, name, RecordType::SRV, targets("broken.test."));
    turn(&clock, Duration::from_mins(1)).await;
    let known = service.changed().await.unwrap();
    assert!(known.stale.is_some(), "whether it has none is not known");
    assert_eq!(authorities(&known.endpoints.unwrap()), ["10.0.0.2:8002"]);

    set(&zone, name, RecordType::SRV, targets("gone.test."));
    turn(&clock, Duration::from_mins(1)).await;
    assert_eq!(service.changed().await.unwrap().stale, None);
    set(&zone, "two.test.", RecordType::A, vec![]);
    turn(&clock, Duration::from_mins(1)).await;
    let known = service.changed().await.unwrap();
    assert!(known.stale.is_some(), "with none left it is an error");
    assert_eq!(authorities(&known.endpoints.unwrap()), ["10.0.0.2:8002"]);
}

#[tokio::test]
async fn weights_beyond_ours_keep_their_proportions() {
    let zone = Zone::default();
    let name = "_http._tcp.orders.test.";
    let records = [(2_000, 8001), (20_000, 8002), (5, 8003)];
    let records = records.map(|(weight, port)| (60, srv(1, weight, port, "one.test.")));
    set(&zone, name, RecordType::SRV, records.to_vec());
    set(&zone, "one.test.", RecordType::A, vec![(60, a("10.0.0.1"))]);
    let clock = Arc::new(ManualClock::new());
    let dns = Dns::services(name, clock.clone()).unwrap().server(server(&zone).await).unwrap();
    let (mut service, watching) = Service::new("orders", dns, clock);
    tokio::spawn(watching.run());
    let told: Vec<_> = service.ready().await.unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(told, ["10.0.0.1:8001;weight=100", "10.0.0.1:8002;weight=1000", "10.0.0.1:8003"]);
}

#[tokio::test]
async fn an_alias_is_believed_no_longer_than_it_lives() {
    let direct = vec![(5, cname("real.test.")), (300, a("10.0.0.1"))];
    for records in [direct, vec![(5, cname("real.test."))]] {
        let (zone, clock) = (Zone::default(), ManualClock::new());
        set(&zone, "alias.test.", RecordType::A, records);
        set(&zone, "real.test.", RecordType::A, vec![(300, a("10.0.0.1"))]);
        let dns = Dns::addresses("alias.test", 80, Arc::new(clock.clone())).unwrap();
        let dns = dns.server(server(&zone).await).unwrap();
        let (mut service, watching) = Service::new("orders", dns, Arc::new(clock.clone()));
        tokio::spawn(watching.run());
        assert_eq!(authorities(&service.ready().await.unwrap()), ["10.0.0.1:80"]);
        set(&zone, "alias.test.", RecordType::A, vec![(5, a("10.0.0.2"))]);
        turn(&clock, Duration::from_secs(5)).await;
        assert_eq!(clock.sleepers(), 0, "it is asked again");
        let known = service.changed().await.unwrap();
        assert_eq!(authorities(&known.endpoints.unwrap()), ["10.0.0.2:80"]);
    }
}
