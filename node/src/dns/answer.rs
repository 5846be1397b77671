//! Answers DNS queries for services (RFC 1035), with hickory-proto as the message codec.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use super::table::{Querier, Table};
use super::virtual_ips::VIRTUAL_IPS;

/// Time to live of an answer, in seconds. A virtual IP changes only when its service is removed and deployed again.
const TTL: u32 = 5;
/// Limit of addresses in one answer, so that it fits in 512 bytes. Several services may share an alias.
const MAX_ADDRESSES: usize = 16;

/// How to respond to a query.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Response {
    /// Send this message.
    Answer(Vec<u8>),
    /// Forward the query to an upstream server: the name is no service.
    Forward,
    /// Send nothing: the message is no query.
    Ignore,
}

/// Returns the response to a container's query.
pub(super) fn answer(question: &[u8], querier: &Querier, table: &Table) -> Response {
    let Ok(message) = Message::from_vec(question) else { return Response::Ignore };
    if message.metadata.message_type != MessageType::Query {
        return Response::Ignore;
    }
    if message.metadata.op_code != OpCode::Query {
        return response(&message, ResponseCode::NotImp, Vec::new());
    }
    let [query] = message.queries.as_slice() else {
        return response(&message, ResponseCode::FormErr, Vec::new());
    };
    if query.query_class() != DNSClass::IN {
        return Response::Forward;
    }
    if let Some(address) = reverse(query.name()) {
        return answer_reverse(&message, query, querier, table, address);
    }
    let addresses = table.lookup(querier, &query.name().to_ascii());
    if addresses.is_empty() {
        return Response::Forward;
    }
    // A service without records of the type is no error (NODATA): on NXDOMAIN for AAAA clients would not ask for A.
    let has_type = matches!(query.query_type(), RecordType::A | RecordType::ANY);
    let answers = addresses.into_iter().take(MAX_ADDRESSES).filter(|_| has_type);
    let record = |it| Record::from_rdata(query.name().clone(), TTL, RData::A(A(it)));
    response(&message, ResponseCode::NoError, answers.map(record).collect())
}

/// Returns an error response with a code; `None`: the message is no query.
pub(super) fn refuse(question: &[u8], code: ResponseCode) -> Option<Vec<u8>> {
    match response(&Message::from_vec(question).ok()?, code, Vec::new()) {
        Response::Answer(bytes) => Some(bytes),
        Response::Forward | Response::Ignore => None,
    }
}

/// Returns whether a query is for a name of one label, such as a host in a home network.
pub(super) fn is_single_label(question: &[u8]) -> bool {
    let Ok(message) = Message::from_vec(question) else { return false };
    message.queries.iter().all(|query| query.name().num_labels() == 1)
}

/// Returns the virtual IP of a reverse (PTR) name.
fn reverse(name: &Name) -> Option<Ipv4Addr> {
    let net = name.parse_arpa_name().ok()?;
    match net.addr() {
        IpAddr::V4(address) if net.prefix_len() == 32 && VIRTUAL_IPS.contains(&address) => {
            Some(address)
        }
        _ => None,
    }
}

fn answer_reverse(
    message: &Message,
    query: &Query,
    querier: &Querier,
    table: &Table,
    address: Ipv4Addr,
) -> Response {
    let service = table.reach(querier, address);
    let name = service
        .and_then(|key| Name::from_ascii(format!("{}.{}.", key.service, key.project)).ok())
        .map(|name| Record::from_rdata(query.name().clone(), TTL, RData::PTR(PTR(name))));
    match name {
        Some(record) => {
            let has_type = matches!(query.query_type(), RecordType::PTR | RecordType::ANY);
            let records = Some(record).filter(|_| has_type).into_iter().collect();
            response(message, ResponseCode::NoError, records)
        }
        // No upstream server knows virtual IPs.
        None => response(message, ResponseCode::NXDomain, Vec::new()),
    }
}

fn response(question: &Message, code: ResponseCode, answers: Vec<Record>) -> Response {
    let mut metadata = Metadata::response_from_request(&question.metadata);
    metadata.response_code = code;
    metadata.recursion_available = true;
    // On an NXDOMAIN that is not authoritative, Docker 20 asks its next resolver.
    metadata.authoritative = true;
    let mut message = Message::new(metadata.id, MessageType::Response, metadata.op_code);
    message.metadata = metadata;
    message.add_queries(question.queries.iter().take(1).cloned());
    message.add_answers(answers);
    if question.edns.is_some() {
        message.set_edns(Edns::new());
    }
    message.to_vec().map_or(Response::Ignore, Response::Answer)
}

#[cfg(test)]
mod tests {
    use super::super::table::tests::{querier, table};
    use super::*;

    fn question(name: &str, kind: RecordType) -> Vec<u8> {
        let mut message = Message::new(7, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(Name::from_ascii(name).expect("a name"), kind));
        message.to_vec().expect("bytes")
    }

    fn shop() -> Table {
        table(&[("shop/api", &[("default", &[])]), ("blog/wiki", &[("default", &[])])])
    }

    fn ask(project: &str, name: &str, kind: RecordType) -> Option<Message> {
        match answer(&question(name, kind), &querier(project, &["default"]), &shop()) {
            Response::Answer(bytes) => Some(Message::from_vec(&bytes).expect("an answer")),
            Response::Forward => None,
            Response::Ignore => panic!("ignored"),
        }
    }

    #[test]
    fn a_service_has_an_a_record_and_no_others() {
        let reply = ask("shop", "API.", RecordType::A).expect("an answer");
        assert_eq!(reply.metadata.id, 7);
        assert_eq!(reply.metadata.message_type, MessageType::Response);
        assert_eq!(reply.metadata.response_code, ResponseCode::NoError);
        assert!(reply.metadata.recursion_desired && reply.metadata.recursion_available);
        assert_eq!(reply.queries[0].name().to_ascii(), "API.");
        let [record] = reply.answers.as_slice() else { panic!("{:?}", reply.answers) };
        assert_eq!(record.name.to_ascii(), "API.");
        assert!(matches!(&record.data, RData::A(A(address)) if VIRTUAL_IPS.contains(address)));
        for kind in [RecordType::AAAA, RecordType::MX, RecordType::HTTPS] {
            let reply = ask("shop", "api", kind).expect("an answer");
            assert_eq!(reply.metadata.response_code, ResponseCode::NoError, "{kind}");
            assert_eq!(reply.answers, [], "{kind}");
        }
    }

    #[test]
    fn queries_for_other_names_are_forwarded() {
        for name in ["example.com.", "wiki", "wiki.blog.", "api.example.com.", "."] {
            assert_eq!(ask("shop", name, RecordType::A), None, "{name}");
        }
        assert!(ask("blog", "wiki", RecordType::A).is_some());
        assert_eq!(ask("shop", "1.0.0.10.in-addr.arpa.", RecordType::PTR), None);
    }

    #[test]
    fn reverse_lookup_works_for_queriers_that_reach_the_service() {
        let reply = ask("shop", "api", RecordType::A).expect("an answer");
        let RData::A(A(address)) = reply.answers[0].data else { panic!("no address") };
        let name = Name::from(address).to_ascii();
        let reply = ask("shop", &name, RecordType::PTR).expect("an answer");
        assert!(
            matches!(&reply.answers[0].data, RData::PTR(PTR(name)) if name.to_ascii() == "api.shop.")
        );
        let reply = ask("blog", &name, RecordType::PTR).expect("an answer");
        assert_eq!(reply.metadata.response_code, ResponseCode::NXDomain);
    }

    #[test]
    fn malformed_messages_are_ignored_and_unsupported_queries_refused() {
        let web = querier("shop", &["default"]);
        let respond = |bytes: &[u8]| answer(bytes, &web, &shop());
        let whole = question("api", RecordType::A);
        for cut in 0..whole.len() {
            assert_eq!(respond(&whole[..cut]), Response::Ignore, "{cut} bytes");
        }
        let mut reply = whole.clone();
        reply[2] |= 0x80; // QR: an answer, which must never be answered.
        assert_eq!(respond(&reply), Response::Ignore);
        // A name that points at itself.
        let mut endless = whole[..12].to_vec();
        endless.extend([0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(respond(&endless), Response::Ignore);

        let code = |bytes: &[u8]| match respond(bytes) {
            Response::Answer(bytes) => {
                Message::from_vec(&bytes).expect("an answer").metadata.response_code
            }
            other => panic!("{other:?}"),
        };
        let mut update = Message::new(1, MessageType::Query, OpCode::Update);
        assert_eq!(code(&update.to_vec().expect("bytes")), ResponseCode::NotImp);
        update.metadata.op_code = OpCode::Query;
        assert_eq!(code(&update.to_vec().expect("bytes")), ResponseCode::FormErr);
        let refused = refuse(&whole, ResponseCode::ServFail).expect("an answer");
        let refused = Message::from_vec(&refused).expect("a message");
        assert_eq!(refused.metadata.response_code, ResponseCode::ServFail);
        assert_eq!(refused.queries.len(), 1);
        assert_eq!(refuse(b"x", ResponseCode::ServFail), None);
    }
}
