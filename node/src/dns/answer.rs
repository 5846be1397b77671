//! Answers DNS queries for services (RFC 1035), with hickory-proto as the message codec.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, PTR};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};
use ipnet::Ipv4Net;

use super::table::{Querier, Table};
use super::virtual_ips::VIRTUAL_IPS;

/// Time to live of an answer, in seconds. A virtual IP changes only when its service is removed and deployed again.
const TTL: u32 = 5;
/// Limit of addresses in one answer, so that it fits in 512 bytes. Several services may share an alias.
const MAX_ADDRESSES: usize = 16;
/// The version of EDNS (RFC 6891).
const EDNS_VERSION: u8 = 0;
/// Size of datagrams that this server says to take, in bytes: that of DNS flag day 2020.
const MAX_PAYLOAD: u16 = 1232;
/// Length of a message's header in bytes.
const HEADER: usize = 12;
/// The bit of the third byte that tells answers from queries.
const QR: u8 = 0x80;

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
    let Ok(message) = Message::from_vec(question) else { return malformed(question) };
    if message.metadata.message_type != MessageType::Query {
        return Response::Ignore;
    }
    if message.metadata.op_code != OpCode::Query {
        return response(&message, ResponseCode::NotImp, Vec::new());
    }
    if message.edns.as_ref().is_some_and(|edns| edns.version() > EDNS_VERSION) {
        return response(&message, ResponseCode::BADVERS, Vec::new());
    }
    let [query] = message.queries.as_slice() else {
        return response(&message, ResponseCode::FormErr, Vec::new());
    };
    if query.query_class() != DNSClass::IN {
        return Response::Forward;
    }
    if let Some(address) = reverse(query.name()).filter(|it| VIRTUAL_IPS.contains(it)) {
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

/// Returns the response to a query that cannot be parsed: FORMERR, so that its client does not wait.
fn malformed(question: &[u8]) -> Response {
    let [id_0, id_1, flags, ..] = *question else { return Response::Ignore };
    let is_query = flags & QR == 0;
    if question.len() < HEADER || !is_query {
        return Response::Ignore;
    }
    let code = u8::try_from(u16::from(ResponseCode::FormErr)).unwrap_or_default();
    Response::Answer([&[id_0, id_1, flags | QR, code][..], &[0; 8]].concat())
}

/// Returns an upstream server's answer if a client takes it in a datagram; otherwise one that is truncated, so that the
/// client repeats the query over TCP.
pub(super) fn fit(question: &[u8], answer: Vec<u8>) -> Vec<u8> {
    let Ok(message) = Message::from_vec(question) else { return answer };
    if answer.len() <= usize::from(message.max_payload()) {
        return answer;
    }
    match respond(&message, ResponseCode::NoError, Vec::new(), true) {
        Response::Answer(truncated) => truncated,
        Response::Forward | Response::Ignore => answer,
    }
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

/// Returns whether a query is for the name of an address in a network.
pub(super) fn is_reverse_in(question: &[u8], network: Ipv4Net) -> bool {
    let Ok(message) = Message::from_vec(question) else { return false };
    let mut addresses = message.queries.iter().filter_map(|query| reverse(query.name()));
    addresses.any(|address| network.contains(&address))
}

/// Returns the address of a reverse (PTR) name.
fn reverse(name: &Name) -> Option<Ipv4Addr> {
    let net = name.parse_arpa_name().ok()?;
    match net.addr() {
        IpAddr::V4(address) if net.prefix_len() == 32 => Some(address),
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
    respond(question, code, answers, false)
}

fn respond(
    question: &Message,
    code: ResponseCode,
    answers: Vec<Record>,
    truncated: bool,
) -> Response {
    let mut metadata = Metadata::response_from_request(&question.metadata);
    metadata.response_code = code;
    metadata.recursion_available = true;
    // On an NXDOMAIN that is not authoritative, Docker 20 asks its next resolver.
    metadata.authoritative = true;
    metadata.truncation = truncated;
    let mut message = Message::new(metadata.id, MessageType::Response, metadata.op_code);
    message.metadata = metadata;
    message.add_queries(question.queries.iter().take(1).cloned());
    message.add_answers(answers);
    if let Some(edns) = &question.edns {
        let mut own = Edns::new();
        // RFC 3225, section 3: the bit is copied.
        own.set_max_payload(MAX_PAYLOAD).set_dnssec_ok(edns.flags().dnssec_ok);
        message.set_edns(own);
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

    /// A query with EDNS.
    fn edns_question(name: &str, kind: RecordType, version: u8, payload: u16) -> Vec<u8> {
        let mut message = Message::from_vec(&question(name, kind)).expect("a message");
        let mut edns = Edns::new();
        edns.set_version(version).set_max_payload(payload).set_dnssec_ok(true);
        message.set_edns(edns);
        message.to_vec().expect("bytes")
    }

    #[test]
    fn names_keep_their_case_and_edns_is_answered() {
        let web = querier("shop", &["default"]);
        let ask = |question: &[u8]| match answer(question, &web, &shop()) {
            Response::Answer(bytes) => Message::from_vec(&bytes).expect("an answer"),
            other => panic!("{other:?}"),
        };
        let reply = ask(&edns_question("aPi.sHOp.", RecordType::A, 0, 4096));
        assert_eq!(reply.queries[0].name().to_ascii(), "aPi.sHOp.");
        assert_eq!(reply.answers[0].name.to_ascii(), "aPi.sHOp.");
        let edns = reply.edns.expect("EDNS");
        assert_eq!((edns.version(), edns.max_payload()), (0, MAX_PAYLOAD));
        assert!(edns.flags().dnssec_ok);
        let reply = ask(&question("api", RecordType::Unknown(65_280)));
        assert_eq!((reply.metadata.response_code, reply.answers.len()), (ResponseCode::NoError, 0));
        assert!(reply.edns.is_none());
        let reply = ask(&edns_question("api", RecordType::A, 1, 4096));
        // BADVERS has the number of BADSIG.
        assert_eq!(u16::from(reply.metadata.response_code), 16);
    }

    #[test]
    fn an_answer_over_the_size_that_its_client_takes_is_truncated() {
        let plain = question("example.com.", RecordType::TXT);
        let wide = edns_question("example.com.", RecordType::TXT, 0, 1400);
        let whole = |question: &[u8], bytes| {
            let upstream = vec![9; bytes];
            let fitted = fit(question, upstream.clone());
            if fitted == upstream {
                return true;
            }
            let reply = Message::from_vec(&fitted).expect("an answer");
            assert!(reply.metadata.truncation && reply.answers.is_empty());
            assert_eq!((reply.metadata.id, reply.queries.len()), (7, 1));
            false
        };
        assert!(whole(&plain, 512) && !whole(&plain, 513));
        assert!(whole(&wide, 1400) && !whole(&wide, 1401));
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
    fn names_of_addresses_in_the_network_of_the_client_are_recognized() {
        let network: Ipv4Net = "10.222.124.128/25".parse().expect("a network");
        for (name, is_in) in [
            ("129.124.222.10.in-addr.arpa.", true),
            ("127.124.222.10.in-addr.arpa.", false),
            ("124.222.10.in-addr.arpa.", false),
            ("api.", false),
        ] {
            assert_eq!(is_reverse_in(&question(name, RecordType::PTR), network), is_in, "{name}");
        }
    }

    #[test]
    fn malformed_messages_are_ignored_and_unsupported_queries_refused() {
        let web = querier("shop", &["default"]);
        let respond = |bytes: &[u8]| answer(bytes, &web, &shop());
        let whole = question("api", RecordType::A);
        for cut in 0..HEADER {
            assert_eq!(respond(&whole[..cut]), Response::Ignore, "{cut} bytes");
        }
        // FORMERR with the id and the flag of the query, and no records.
        let refused = Response::Answer(vec![0, 7, 0x81, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
        for cut in HEADER..whole.len() {
            assert_eq!(respond(&whole[..cut]), refused, "{cut} bytes");
        }
        // An answer, whole or not, is never answered.
        let mut reply = whole.clone();
        reply[2] |= QR;
        assert_eq!(respond(&reply), Response::Ignore);
        assert_eq!(respond(&reply[..20]), Response::Ignore);
        // A name that points at itself.
        let mut endless = whole[..12].to_vec();
        endless.extend([0xc0, 12, 0, 1, 0, 1]);
        assert_eq!(respond(&endless), refused);

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
