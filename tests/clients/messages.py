"""Messages of every type of the proto through our JSON and through Python's protobuf: both write the same and read each other."""

import json
import math
import os
import random
import struct
import subprocess
import tempfile

import grpc_tools.protoc
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from google.protobuf.descriptor import FieldDescriptor as Field

from harness import BINARY, PROTO, ROOT, assert_equal, assert_true

PROGRAM = BINARY.parent / "usersd-json"
FILES = ("users.proto", "keys.proto", "errors.proto", "everything.proto")

# The same messages in each run.
SEED = 20261126
# Messages of each type, and of the one that has fields of all kinds.
EACH, OF_ALL = 20, 1_000

# How we write and read, and how Python is told to do the same.
STYLES = {
    "canonical": ({"always_print_fields_with_no_presence": True}, {}),
    "connect": ({}, {"ignore_unknown_fields": True}),
    "micro": ({"preserving_proto_field_name": True}, {"ignore_unknown_fields": True}),
}

INTEGERS = (Field.CPPTYPE_INT32, Field.CPPTYPE_INT64, Field.CPPTYPE_UINT32, Field.CPPTYPE_UINT64)
LETTERS = ["a", "Z", "0", " ", '"', "\\", "/", "\n", "\0", "\x1f", "\x7f", "ä", "\u2028", "\ufffd", "\uffff", "😀", "e\u0301", "</script>"]


class Codec:
    """The messages by Python, and the program that reads and writes them by our tables."""

    def __init__(self, folder):
        self.descriptors = os.path.join(folder, "descriptors.binpb")
        google = os.path.join(os.path.dirname(grpc_tools.protoc.__file__), "_proto")
        arguments = [f"-I{PROTO}", f"-I{ROOT}/tests/proto", f"-I{google}", "--include_imports", f"--descriptor_set_out={self.descriptors}"]
        assert_equal(grpc_tools.protoc.main(["protoc", *arguments, *FILES]), 0, "exit code of protoc")
        with open(self.descriptors, "rb") as file:
            files = descriptor_pb2.FileDescriptorSet.FromString(file.read()).file
        self.pool = descriptor_pool.DescriptorPool()
        for file in files:
            self.pool.Add(file)
        self.names = [f"{file.package}.{message.name}" for file in files if file.name in FILES for message in file.message_type]

    def make(self, name):
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))()

    def run(self, lines):
        """What our program makes of lines of command, style, name and bytes: bytes, or None where it refuses."""
        text = "".join(f"{command} {style} {name} {data.hex()}\n" for command, style, name, data in lines)
        done = subprocess.run([PROGRAM, self.descriptors], input=text, capture_output=True, text=True, timeout=120)
        assert_equal((done.returncode, done.stderr), (0, ""), "exit code of usersd-json")
        answers = [None if line == "-" else bytes.fromhex(line) for line in done.stdout.splitlines()]
        assert_equal(len(answers), len(lines), "answers")
        return answers


class Messages:
    """Random messages, with what is odd more often than not."""

    def __init__(self, codec):
        self.codec, self.random = codec, random.Random(SEED)

    def integer(self, bits, signed):
        low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
        number = self.random.choice([0, 1, -1, low, high, low + 1, 1 << self.random.randrange(bits), self.random.randint(low, high)])
        return min(max(number, low), high)

    def double(self):
        number = struct.unpack("<d", self.random.randbytes(8))[0]
        return self.random.choice([0.0, -0.0, 1.5, -1e300, 5e-324, 9007199254740993.0, number if math.isfinite(number) else 0.1])

    def text(self):
        return "".join(self.random.choices(LETTERS, k=self.random.randrange(8)))

    def scalar(self, field):
        kind = field.cpp_type
        if field.type == Field.TYPE_BYTES:
            return self.random.randbytes(self.random.randrange(6))
        if kind == Field.CPPTYPE_STRING:
            return self.text()
        if kind == Field.CPPTYPE_BOOL:
            return self.random.random() < 0.5
        if kind == Field.CPPTYPE_ENUM:
            numbers = [0] if field.enum_type.name == "NullValue" else [*field.enum_type.values_by_number, -7, 77]
            return self.random.choice(numbers)
        if kind == Field.CPPTYPE_DOUBLE:
            return self.random.choice([self.double(), math.inf, -math.inf])
        if kind == Field.CPPTYPE_FLOAT:
            single = struct.unpack("<f", self.random.randbytes(4))[0]
            return self.random.choice([0.0, -0.0, 0.1, math.inf, single if math.isfinite(single) else 1e-45])
        bits = 64 if kind in (Field.CPPTYPE_INT64, Field.CPPTYPE_UINT64) else 32
        return self.integer(bits, kind in (Field.CPPTYPE_INT32, Field.CPPTYPE_INT64))

    def fill(self, message, depth=0):
        special = getattr(self, "fill_" + message.DESCRIPTOR.full_name.replace(".", "_"), None)
        if special:
            special(message, depth)
            return message
        for field in message.DESCRIPTOR.fields:
            if self.random.random() < 0.6 or (depth > 2 and field.message_type):
                continue
            if field.message_type and field.message_type.full_name == "google.protobuf.Any":
                continue  # no message of the proto has one: see conformance.txt
            self.set(message, field, depth)
        return message

    def set(self, message, field, depth):
        name, many = field.name, range(self.random.randrange(4))
        value = getattr(message, name)
        if field.message_type and field.message_type.GetOptions().map_entry:
            key, inner = (field.message_type.fields_by_name[part] for part in ("key", "value"))
            for _ in many:
                if inner.message_type:
                    self.fill(value[self.scalar(key)], depth + 1)
                else:
                    value[self.scalar(key)] = self.scalar(inner)
        elif field.is_repeated:
            for _ in many:
                if field.message_type:
                    self.fill(value.add(), depth + 1)
                else:
                    value.append(self.scalar(field))
        elif field.message_type:
            value.SetInParent()
            self.fill(value, depth + 1)
        else:
            setattr(message, name, self.scalar(field))

    def fill_google_protobuf_Timestamp(self, time, _):
        time.seconds = self.random.choice([0, -62_135_596_800, 253_402_300_799, self.random.randint(-62_135_596_800, 253_402_300_799)])
        time.nanos = self.random.choice([0, 1, 1_000, 500_000_000, 999_999_999])

    def fill_google_protobuf_Duration(self, span, _):
        sign = self.random.choice([-1, 1])
        span.seconds = sign * self.random.choice([0, 1, 315_576_000_000, self.random.randrange(1 << 38)])
        span.nanos = sign * self.random.choice([0, 1, 1_000, 500_000_000, 999_999_999])

    def fill_google_protobuf_FieldMask(self, mask, _):
        mask.paths.extend(self.random.choices(["user_id", "a.b_c", "name", "x1"], k=self.random.randrange(4)))

    def fill_google_protobuf_Struct(self, fields, depth):
        for _ in range(self.random.randrange(4)):
            self.fill_google_protobuf_Value(fields.fields[self.text()], depth + 1)

    def fill_google_protobuf_ListValue(self, values, depth):
        for _ in range(self.random.randrange(4)):
            self.fill_google_protobuf_Value(values.values.add(), depth + 1)

    def fill_google_protobuf_Value(self, value, depth):
        kind = self.random.choice(["null", "number", "text", "bool"] + (["struct", "list"] if depth < 6 else []))
        if kind == "null":
            value.null_value = 0
        elif kind == "number":
            value.number_value = self.double()
        elif kind == "text":
            value.string_value = self.text()
        elif kind == "bool":
            value.bool_value = self.random.random() < 0.5
        elif kind == "struct":
            value.struct_value.SetInParent()
            self.fill_google_protobuf_Struct(value.struct_value, depth)
        else:
            value.list_value.SetInParent()
            self.fill_google_protobuf_ListValue(value.list_value, depth)


def same(message):
    """Bytes that equal messages have in common."""
    return message.SerializeToString(deterministic=True)


def rounded(value):
    """Numbers as those of 32 bits: we write whole ones of a float in full, Python in few digits. Which number was meant, the
    messages tell that are read from them."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    if type(value) in (int, float) and abs(value) < 3e38:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    return value


def random_messages():
    with tempfile.TemporaryDirectory() as folder:
        codec = Codec(folder)
        assert_true(len(codec.names) > 60, f"types of messages: {len(codec.names)}")
        messages, cases = Messages(codec), []
        for name in codec.names:
            for number in range(OF_ALL if name == "everything.All" else EACH):
                style = list(STYLES)[number % len(STYLES)]
                message = messages.fill(codec.make(name))
                theirs = json_format.MessageToDict(message, descriptor_pool=codec.pool, **STYLES[style][0])
                cases.append((name, style, message, theirs))
        written = codec.run([("write", style, name, same(message)) for name, style, message, _ in cases])
        read = codec.run([("read", style, name, json.dumps(theirs, ensure_ascii=number % 2 == 0).encode()) for number, (name, style, _, theirs) in enumerate(cases)])
        for (name, style, message, theirs), ours, back in zip(cases, written, read):
            what = f"{name}, {style}: {theirs}"
            assert_true(ours is not None and back is not None, f"it is written and read: {what}")
            ours = json.loads(ours)
            assert_equal(rounded(ours), rounded(theirs), f"what is written of {what}")
            parsed = json_format.ParseDict(ours, codec.make(name), descriptor_pool=codec.pool, **STYLES[style][1])
            assert_equal(same(parsed), same(message), f"what Python reads of ours: {what}")
            assert_equal(same(type(message).FromString(back)), same(message), f"what we read of Python's: {what}")


# --- Every kind of field, and every odd value --------------------------------------------------------------------

ODD = [
    None, True, False, 0, 1, -1, 1.0, 1.5, 1e3, -0.0, 2147483647, 2147483648, 4294967295, 4294967296, -2147483649,
    9007199254740993, 9223372036854775807, 9223372036854775808, 18446744073709551615, 18446744073709551616, 1e308,
    "", "0", "1", "-1", "1.0", "1e3", "1.5", "+1", "01", " 1", "1 ", "0x1", "1_0", "x", "true", "True", "NaN", "nan", "Infinity", "inf", "-Infinity",
    "COLOR_RED", "color_red", "AQI=", "AQI", "-_", "*", "1s", "-1.5s", "1.s", "1", "315576000001s", "2026-01-02T03:04:05Z", "2026-01-02T03:04:05.5+01:00",
    "2026-01-02t03:04:05Z", "2026-01-02", "fooBar,x", "foo_bar", "a..b", [], [None], [1], ["a"], [[]], {}, {"a": 1}, {"a": None}, {"1": {}}, {"true": 1},
]


def group(field):
    """The kind of a field, as the table of differences names it."""
    if field.message_type and field.message_type.GetOptions().map_entry:
        return "map"
    if field.is_repeated:
        return "list"
    if field.message_type:
        name = field.message_type.name
        return field.message_type.fields_by_name["value"] and group(field.message_type.fields_by_name["value"]) if name.endswith("Value") and name not in ("Value", "ListValue") else name
    if field.cpp_type in INTEGERS:
        return "integer"
    if field.cpp_type in (Field.CPPTYPE_DOUBLE, Field.CPPTYPE_FLOAT):
        return "float"
    return {Field.TYPE_BYTES: "bytes", Field.TYPE_STRING: "string", Field.TYPE_BOOL: "bool", Field.TYPE_ENUM: "enum"}[field.type]


# Where Python reads what proto3's JSON does not say, and we do not, by the kind of the field: the reason and the values.
TIMES = ["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.5+01:00", "2026-01-02t03:04:05Z"]
DIFFERENCES = {
    "float() and int() read more than JSON's numbers": {
        "float": ["+1", "01", " 1", "1 ", "1_0", "inf"], "integer": ["+1", "01", "1_0"], "enum": ["+1", "01", " 1", "1 ", "1_0"],
    },
    "booleans are the numbers 0 and 1": {"float": [True, False], "enum": [True, False]},
    "an enum's number may be a string, and loses its fraction and its upper bits": {
        "enum": ["0", "1", "-1", 1.5, 4294967295, 4294967296, 9007199254740993, 9223372036854775807],
    },
    "base64 is read without the characters that are none": {"bytes": ["*", "-1.5s", "fooBar,x", "a..b", *TIMES]},
    "what is empty is an empty message": {"Nested": ["", []], "Empty": ["", []], "list": [[[]]]},
    "a point needs no digits behind it": {"Duration": ["1.s"]},
    "a mask may name what no field is called": {
        "FieldMask": ["-1", "+1", " 1", "1 ", "-Infinity", "AQI=", "-1.5s", "2026-01-02", *TIMES],
    },
    "null is refused for a list of google.protobuf.Value, where we take it for absence": {"list": [None]},
}


def odd_values():
    with tempfile.TemporaryDirectory() as folder:
        codec = Codec(folder)
        cases = []
        for field in codec.make("everything.All").DESCRIPTOR.fields:
            if group(field) != "Any":
                cases += [(field, value) for value in ODD]
        texts = [json.dumps({field.json_name: value}).encode() for field, value in cases]
        came = codec.run([("read", "canonical", "everything.All", text) for text in texts])
        wrong, seen = [], set()
        kinds = [kind for kinds in DIFFERENCES.values() for kind in kinds.items()]
        expected = {(name, json.dumps(value)) for name, values in kinds for value in values}
        for (field, value), text, ours in zip(cases, texts, came):
            try:
                theirs = json_format.Parse(text, codec.make("everything.All"), descriptor_pool=codec.pool)
                theirs = same(theirs)
            except json_format.ParseError:
                theirs = None
            ours = None if ours is None else same(codec.make("everything.All").FromString(ours))
            key = (group(field), json.dumps(value))
            if ours != theirs:
                seen.add(key)
                if key not in expected:
                    wrong.append(f"{key}, {field.name}: {ours} and Python {theirs}")
        wrong += [f"no difference any more: {key}" for key in expected - seen]
        assert_equal(wrong, [], f"differences among {len(cases)} texts")


def tests():
    yield "messages / random ones, by Python's protobuf and ours", random_messages
    yield "messages / every kind of field with every odd value", odd_values
