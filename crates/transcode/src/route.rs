//! Which RPC a verb and a path mean: the templates of `google/api/http.proto` as a tree of path segments.
//!
//! Where that text leaves room or its users complain, this is what we do. A literal wins over a variable, a
//! longer template over `**`. A `:verb` that no template of the path has is part of the last segment. No
//! segment is empty: neither `/v1/users/` nor `/v1//users` is a path of ours. A path that exists with other
//! verbs is told apart from one that does not exist.

use std::borrow::Cow;

use http::Method;

use super::escape::{self, BadEscape};

mod template;

use template::{Segment, Template};

/// Why a rule cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct RouteError(pub(crate) String);

/// One `google.api.http` rule as declared, its field names resolved.
#[derive(Debug)]
pub(crate) struct Rule {
    /// Index of the RPC in the schema.
    pub(crate) method: usize,
    /// `None`: every verb.
    pub(crate) verb: Option<Method>,
    pub(crate) template: String,
    pub(crate) body: Body,
    /// Index of the reply's field that is all of the answer.
    pub(crate) response_body: Option<usize>,
}

/// The destination of the HTTP body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// Nowhere: it is not even read, and the query holds the fields.
    None,
    /// It is the message.
    All,
    /// It is this field; the query holds the others.
    Field(usize),
}

/// A rule that a request can meet.
#[derive(Debug)]
pub struct Binding {
    /// Index of the RPC in the schema.
    pub method: usize,
    /// The destination of the HTTP body.
    pub body: Body,
    /// Index of the reply's field that is all of the answer.
    pub response_body: Option<usize>,
    variables: Vec<Variable>,
}

#[derive(Debug)]
struct Variable {
    /// Field indices from the request's message down.
    field: Vec<usize>,
    /// The segments it takes; `end` is `None` up to the last one.
    start: usize,
    end: Option<usize>,
    /// Whether it can hold more than one segment, which keeps `%2F` apart from `/`.
    several: bool,
}

/// The value that a path gives for a field.
#[derive(Debug, PartialEq, Eq)]
pub struct Capture<'r> {
    /// Field indices from the request's message down.
    pub field: &'r [usize],
    /// Its text, decoded.
    pub text: String,
}

/// The answer to a look-up.
#[derive(Debug)]
pub enum RouteMatch<'r> {
    /// The rule of the path and verb, and the fields that the path gives.
    Binding(&'r Binding, Vec<Capture<'r>>),
    /// The path exists with these verbs only, in alphabetical order.
    OtherVerbs(Vec<&'r Method>),
    /// No rule has the path.
    Nothing,
}

/// Every binding, by path.
#[derive(Debug, Default)]
pub struct Router {
    root: Node,
    bindings: Vec<Binding>,
}

#[derive(Debug, Default)]
struct Node {
    literals: Vec<(Box<str>, Node)>,
    one: Option<Box<Node>>,
    /// Templates that end here, and those that go on with `**`.
    leaves: Vec<Leaf>,
    rest: Vec<Leaf>,
}

#[derive(Debug)]
struct Leaf {
    /// The text behind the `:`.
    action: Option<Box<str>>,
    verb: Option<Method>,
    binding: usize,
}

impl Router {
    /// Adds a rule. `field` turns a variable's field path into indices.
    pub(crate) fn add(
        &mut self,
        rule: Rule,
        field: impl Fn(&str) -> Result<Vec<usize>, RouteError>,
    ) -> Result<(), RouteError> {
        let Rule { method, verb, template: text, body, response_body } = rule;
        let template = Template::parse(&text).map_err(|why| RouteError(format!("`{text}`: {why}")))?;
        let mut variables = Vec::new();
        for variable in &template.variables {
            let open = template.segments.get(variable.end - 1) == Some(&Segment::Rest);
            variables.push(Variable {
                field: field(&variable.field)?,
                start: variable.start,
                end: (!open).then_some(variable.end),
                several: open || variable.end - variable.start > 1,
            });
        }
        let (mut node, mut rest) = (&mut self.root, false);
        for segment in template.segments {
            match segment {
                Segment::Literal(text) => node = node.literal(text),
                Segment::One => node = node.one.get_or_insert_default(),
                Segment::Rest => rest = true,
            }
        }
        let leaves = if rest { &mut node.rest } else { &mut node.leaves };
        let action = template.action.map(Into::into);
        if leaves.iter().any(|leaf| leaf.action == action && leaf.verb == verb) {
            return Err(RouteError(format!("`{text}`: another RPC has this verb and path")));
        }
        leaves.push(Leaf { action, verb, binding: self.bindings.len() });
        self.bindings.push(Binding { method, body, response_body, variables });
        Ok(())
    }

    /// Finds the binding for a verb and a path that is still percent-encoded.
    ///
    /// # Errors
    ///
    /// [`BadEscape`] if the path is not percent-encoded UTF-8.
    pub fn find(&self, verb: &Method, path: &str) -> Result<RouteMatch<'_>, BadEscape> {
        let Some(path) = path.strip_prefix('/') else { return Ok(RouteMatch::Nothing) };
        let mut segments: Vec<&str> = path.split('/').collect();
        if let Some((last, action)) = path.rsplit('/').next().and_then(|last| last.rsplit_once(':')) {
            let whole = segments.pop().unwrap_or_default();
            segments.push(last);
            match self.find_action(verb, &segments, Some(action))? {
                RouteMatch::Nothing => {}
                found => return Ok(found),
            }
            segments.pop();
            segments.push(whole);
        }
        self.find_action(verb, &segments, None)
    }

    fn find_action(
        &self,
        verb: &Method,
        segments: &[&str],
        action: Option<&str>,
    ) -> Result<RouteMatch<'_>, BadEscape> {
        let mut plain = Vec::with_capacity(segments.len());
        for segment in segments {
            if segment.is_empty() {
                return Ok(RouteMatch::Nothing);
            }
            plain.push(escape::decode(segment, escape::Mode::Path)?);
        }
        let mut leaves = Vec::new();
        self.root.collect(&plain, &mut leaves);
        leaves.retain(|leaf| leaf.action.as_deref() == action);
        let exact = leaves.iter().find(|leaf| leaf.verb.as_ref() == Some(verb));
        let Some(leaf) = exact.or_else(|| leaves.iter().find(|leaf| leaf.verb.is_none())) else {
            let mut verbs: Vec<_> = leaves.iter().filter_map(|leaf| leaf.verb.as_ref()).collect();
            verbs.sort_by_key(|verb| verb.as_str());
            verbs.dedup();
            return Ok(if verbs.is_empty() { RouteMatch::Nothing } else { RouteMatch::OtherVerbs(verbs) });
        };
        let binding = &self.bindings[leaf.binding];
        let captures = binding.variables.iter().map(|variable| variable.capture(segments));
        Ok(RouteMatch::Binding(binding, captures.collect::<Result<_, _>>()?))
    }
}

impl Node {
    fn literal(&mut self, text: String) -> &mut Self {
        let at = self.literals.iter().position(|(known, _)| **known == *text).unwrap_or_else(|| {
            self.literals.push((text.into(), Self::default()));
            self.literals.len() - 1
        });
        &mut self.literals[at].1
    }

    /// Every template that the segments match, the most literal one first.
    fn collect<'r>(&'r self, segments: &[Cow<'_, str>], into: &mut Vec<&'r Leaf>) {
        if let Some((first, others)) = segments.split_first() {
            if let Some((_, node)) = self.literals.iter().find(|(text, _)| **text == **first) {
                node.collect(others, into);
            }
            if let Some(node) = &self.one {
                node.collect(others, into);
            }
        } else {
            into.extend(&self.leaves);
        }
        into.extend(&self.rest);
    }
}

impl Variable {
    fn capture(&self, segments: &[&str]) -> Result<Capture<'_>, BadEscape> {
        let end = self.end.unwrap_or(segments.len());
        let taken = segments.get(self.start..end).unwrap_or_default().join("/");
        let mode = if self.several { escape::Mode::SeveralSegments } else { escape::Mode::Path };
        Ok(Capture { field: &self.field, text: escape::decode(&taken, mode)?.into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(router: &mut Router, template: &str) -> Result<(), RouteError> {
        let rule = Rule {
            method: 0,
            verb: Some(Method::GET),
            template: template.to_owned(),
            body: Body::None,
            response_body: None,
        };
        router.add(rule, |_| Ok(vec![0]))
    }

    #[test]
    fn p1_p2_p11_templates_that_are_none() {
        for template in [
            "",
            "v1",
            "/",
            "/v1/",
            "/v1//a",
            "/v1/{a",
            "/v1/{a}b",
            "/v1/{a={b}}",
            "/v1/**/a",
            "/v1/{a=**}/b",
            "/v1/a*",
            "/v1/users:by/{email}",
            "/v1/a:b:c",
            "/v1/a:",
            "/v1/{a}/{a}",
        ] {
            assert!(add(&mut Router::default(), template).is_err(), "{template}");
        }
    }

    #[test]
    fn p10_a_template_stands_for_one_rpc() {
        let mut router = Router::default();
        add(&mut router, "/v1/users/{id}").unwrap();
        add(&mut router, "/v1/users/{id}:restore").unwrap();
        add(&mut router, "/v1/users/me").unwrap();
        let err = add(&mut router, "/v1/users/{name}").unwrap_err();
        assert_eq!(err.to_string(), "`/v1/users/{name}`: another RPC has this verb and path");
    }
}
