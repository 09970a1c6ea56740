//! From an encoded descriptor set to the tables. Runs once, at start, so it may be slow and must be picky.

use std::collections::HashMap;

use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, ExtensionDescriptor, FieldDescriptor, Kind as Declared,
    MessageDescriptor, MethodDescriptor, Value,
};
use prost_types::method_options::IdempotencyLevel;

use super::{
    Cardinality, Enum, EnumId, Field, FieldType, Message, MessageId, Method, Schema, SchemaError, Special,
    order,
};
use crate::route::{Body, RouteError, Router, Rule};

type Ids = HashMap<String, usize>;

impl Schema {
    /// Reads an encoded `FileDescriptorSet`. It must hold every import, and keep the `google.api.http` options
    /// as protox's own encoding does.
    ///
    /// # Errors
    ///
    /// [`SchemaError`] if the bytes are no descriptor set, or a `google.api.http` option cannot be served: a path
    /// template that does not parse, that another RPC has, or that names a field which is not there.
    pub fn decode(descriptors: &[u8]) -> Result<Self, SchemaError> {
        let pool = DescriptorPool::decode(descriptors).map_err(|err| SchemaError::new(err.to_string()))?;
        let messages: Ids =
            pool.all_messages().enumerate().map(|(n, m)| (m.full_name().to_owned(), n)).collect();
        let enums: Ids = pool.all_enums().enumerate().map(|(n, e)| (e.full_name().to_owned(), n)).collect();
        let mut schema = Self {
            messages: Vec::with_capacity(messages.len()),
            enums: pool.all_enums().map(|declared| enumeration(&declared)).collect(),
            methods: Vec::new(),
            router: Router::default(),
            by_name: messages.iter().map(|(name, n)| (name.as_str().into(), MessageId(*n))).collect(),
            by_path: HashMap::new(),
        };
        for declared in pool.all_messages() {
            schema.messages.push(message(&declared, &messages, &enums)?);
        }
        let http = pool.get_extension_by_name("google.api.http");
        for service in pool.services() {
            for declared in service.methods() {
                schema.add_method(&declared, http.as_ref(), &messages)?;
            }
        }
        Ok(schema)
    }

    fn add_method(
        &mut self,
        declared: &MethodDescriptor,
        http: Option<&ExtensionDescriptor>,
        messages: &Ids,
    ) -> Result<(), SchemaError> {
        let service = declared.parent_service().full_name().to_owned();
        let path = format!("/{service}/{}", declared.name());
        let unknown = || SchemaError::new(format!("{path}: its messages are not in the set"));
        let input = *messages.get(declared.input().full_name()).ok_or_else(unknown)?;
        let output = *messages.get(declared.output().full_name()).ok_or_else(unknown)?;
        let at = self.methods.len();
        self.by_path.insert(path.as_str().into(), at);
        self.methods.push(Method {
            number: at,
            uri: path.parse().map_err(|_| SchemaError::new(format!("{path}: not a path")))?,
            service: service.into(),
            name: declared.name().into(),
            input: MessageId(input),
            output: MessageId(output),
            client_streaming: declared.is_client_streaming(),
            server_streaming: declared.is_server_streaming(),
            no_side_effects: declared
                .method_descriptor_proto()
                .options
                .as_ref()
                .is_some_and(|options| options.idempotency_level() == IdempotencyLevel::NoSideEffects),
        });
        // A stream of requests has no form in JSON.
        let http =
            http.filter(|http| !declared.is_client_streaming() && declared.options().has_extension(http));
        let Some(http) = http else { return Ok(()) };
        let options = declared.options();
        let Value::Message(rule) = options.get_extension(http).into_owned() else { return Ok(()) };
        let context = |err: SchemaError| SchemaError::new(format!("{path}: {err}"));
        self.bind(at, &rule).map_err(context)?;
        for more in list(&rule, "additional_bindings") {
            if !list(&more, "additional_bindings").is_empty() {
                return Err(context(SchemaError::new("additional_bindings inside additional_bindings")));
            }
            self.bind(at, &more).map_err(context)?;
        }
        Ok(())
    }

    fn bind(&mut self, method: usize, rule: &DynamicMessage) -> Result<(), SchemaError> {
        let (verb, template) = pattern(rule)?;
        let input = &self.messages[self.methods[method].input.0];
        let output = &self.messages[self.methods[method].output.0];
        let body = match text(rule, "body").as_str() {
            "" => Body::None,
            "*" => Body::All,
            name => Body::Field(input.by_name(name, 0).ok_or_else(|| {
                SchemaError::new(format!("body `{name}` is not a field of {}", input.name))
            })?),
        };
        let response_body = match text(rule, "response_body").as_str() {
            "" => None,
            name => Some(output.by_name(name, 0).ok_or_else(|| {
                SchemaError::new(format!("response_body `{name}` is not a field of {}", output.name))
            })?),
        };
        let root = self.methods[method].input;
        let rule = Rule { method, verb, template, body, response_body };
        self.router
            .add(rule, |path| field_path(&self.messages, root, path))
            .map_err(|error| SchemaError::new(error.to_string()))
    }
}

/// Field indices of a path like `device.address`, for a variable in a template.
fn field_path(messages: &[Message], root: MessageId, path: &str) -> Result<Vec<usize>, RouteError> {
    let mut at = Some(root);
    let mut steps = Vec::new();
    for step in path.split('.') {
        let message = at.map(|id| &messages[id.0]).filter(|message| message.special.is_none());
        let found = message.and_then(|message| Some((message, message.by_name(step, 0)?)));
        let Some((message, index)) = found else {
            return Err(RouteError(format!("`{path}` is not a field of {}", messages[root.0].name)));
        };
        let field = &message.fields[index];
        if field.many() {
            return Err(RouteError(format!("`{path}` is a list or a map, which no path can hold")));
        }
        at = match field.kind {
            FieldType::Message(id) => Some(id),
            _ => None,
        };
        steps.push(index);
    }
    if at.is_some_and(|id| messages[id.0].special.is_none()) {
        return Err(RouteError(format!("`{path}` is a message, which no path can hold")));
    }
    Ok(steps)
}

/// The verb, `None` for any, and the template.
fn pattern(rule: &DynamicMessage) -> Result<(Option<http::Method>, String), SchemaError> {
    for verb in ["get", "put", "post", "delete", "patch"] {
        if rule.has_field_by_name(verb) {
            let method = verb.to_uppercase().parse().map_err(|_| SchemaError::new("not a verb"))?;
            return Ok((Some(method), text(rule, verb)));
        }
    }
    let custom = rule.get_field_by_name("custom").map(std::borrow::Cow::into_owned);
    let Some(Value::Message(custom)) = custom.filter(|_| rule.has_field_by_name("custom")) else {
        return Err(SchemaError::new("the http option names no verb"));
    };
    let kind = text(&custom, "kind");
    let verb = match kind.as_str() {
        "*" => None,
        kind => Some(kind.parse().map_err(|_| SchemaError::new(format!("`{kind}` is not a verb")))?),
    };
    Ok((verb, text(&custom, "path")))
}

fn text(message: &DynamicMessage, name: &str) -> String {
    let value = message.get_field_by_name(name);
    value.and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn list(message: &DynamicMessage, name: &str) -> Vec<DynamicMessage> {
    let value = message.get_field_by_name(name);
    let list = value.as_ref().and_then(|value| value.as_list()).unwrap_or_default();
    list.iter().filter_map(|value| value.as_message().cloned()).collect()
}

fn enumeration(declared: &EnumDescriptor) -> Enum {
    // In the order of the declaration, which `values` of the descriptor does not keep.
    let in_order = declared.enum_descriptor_proto().value.iter();
    let mut values: Vec<_> = in_order.map(|value| (value.number(), Box::from(value.name()))).collect();
    values.sort_by_key(|(number, _)| *number); // stable, so the first alias stays first
    values.dedup_by_key(|(number, _)| *number);
    Enum {
        name: declared.name().into(),
        null: declared.full_name() == "google.protobuf.NullValue",
        values,
        by_name: declared.values().map(|value| (value.name().into(), value.number())).collect(),
    }
}

fn message(declared: &MessageDescriptor, messages: &Ids, enums: &Ids) -> Result<Message, SchemaError> {
    let oneofs: Vec<_> =
        declared.oneofs().filter(|one| !one.is_synthetic()).map(|one| one.full_name().to_owned()).collect();
    let mut declared_fields: Vec<_> = declared.fields().collect();
    declared_fields.sort_by_key(FieldDescriptor::number);
    let mut fields = Vec::with_capacity(declared_fields.len());
    let mut names: Vec<(Box<str>, usize)> = Vec::new();
    for (index, field) in declared_fields.iter().enumerate() {
        fields.push(self::field(field, messages, enums, &oneofs)?);
        names.push((field.json_name().into(), index));
        names.push((field.name().into(), index));
    }
    names.sort_by(|(one, _), (other, _)| order(one, other));
    names.dedup();
    if let Some(pair) = names.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(SchemaError::new(format!("{}: two fields are `{}`", declared.full_name(), pair[0].0)));
    }
    let special = special(declared.full_name());
    Ok(Message { name: declared.name().into(), fields, names, oneofs: oneofs.len(), special })
}

fn special(full_name: &str) -> Option<Special> {
    Some(match full_name.strip_prefix("google.protobuf.")? {
        "Timestamp" => Special::Timestamp,
        "Duration" => Special::Duration,
        "FieldMask" => Special::FieldMask,
        "Struct" => Special::Struct,
        "Value" => Special::Value,
        "ListValue" => Special::ListValue,
        "Any" => Special::Any,
        "DoubleValue" | "FloatValue" | "Int64Value" | "UInt64Value" | "Int32Value" | "UInt32Value"
        | "BoolValue" | "StringValue" | "BytesValue" => Special::Wrapper,
        _ => return None,
    })
}

fn field(
    declared: &FieldDescriptor,
    messages: &Ids,
    enums: &Ids,
    oneofs: &[String],
) -> Result<Field, SchemaError> {
    let fault = |why: &str| SchemaError::new(format!("{} {why}", declared.full_name()));
    if declared.is_group() {
        return Err(fault("is a group, which JSON does not know"));
    }
    let kind =
        kind(&declared.kind(), messages, enums).ok_or_else(|| fault("has a type that is not there"))?;
    let cardinality = if declared.is_map() {
        Cardinality::Map
    } else if declared.is_list() {
        if declared.is_packed() { Cardinality::Packed } else { Cardinality::Repeated }
    } else if declared.supports_presence() {
        Cardinality::Explicit
    } else {
        Cardinality::Implicit
    };
    let oneof = declared.containing_oneof();
    let oneof = oneof.and_then(|one| oneofs.iter().position(|known| known == one.full_name()));
    Ok(Field {
        number: declared.number(),
        name: declared.name().into(),
        proto_key: format!("\"{}\":", declared.name()).into_bytes().into(),
        json_key: format!("\"{}\":", declared.json_name()).into_bytes().into(),
        kind,
        cardinality,
        oneof,
    })
}

fn kind(declared: &Declared, messages: &Ids, enums: &Ids) -> Option<FieldType> {
    Some(match declared {
        Declared::Double => FieldType::Double,
        Declared::Float => FieldType::Float,
        Declared::Int32 => FieldType::Int32,
        Declared::Int64 => FieldType::Int64,
        Declared::Uint32 => FieldType::Uint32,
        Declared::Uint64 => FieldType::Uint64,
        Declared::Sint32 => FieldType::Sint32,
        Declared::Sint64 => FieldType::Sint64,
        Declared::Fixed32 => FieldType::Fixed32,
        Declared::Fixed64 => FieldType::Fixed64,
        Declared::Sfixed32 => FieldType::Sfixed32,
        Declared::Sfixed64 => FieldType::Sfixed64,
        Declared::Bool => FieldType::Bool,
        Declared::String => FieldType::String,
        Declared::Bytes => FieldType::Bytes,
        Declared::Message(message) => FieldType::Message(MessageId(*messages.get(message.full_name())?)),
        Declared::Enum(declared) => FieldType::Enum(EnumId(*enums.get(declared.full_name())?)),
    })
}
