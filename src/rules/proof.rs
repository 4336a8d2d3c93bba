//! What can be told of a template without rendering it: that every name in it exists, also where no branch is taken.
//!
//! minijinja looks filters, tests and fields up when it comes by, so that a misspelt one in a branch that no sample takes
//! would be found by the first real outage. This walks the tree that minijinja's own parser makes, knows what each name
//! of the context holds, and follows assignments: a name is known where every way to it assigns it.
//!
//! It also keeps values small. minijinja counts the work of a template, but not the lists in lists that `[x, x]`, `x + x` and
//! `x * 9999999` make of nothing, until they are written out. So a list here holds texts, numbers and yes or no, its length
//! is that of what it was made from, and only those become text.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use minijinja::machinery::ast::{BinOpKind, Call, CallArg, CallType, Expr, Filter, Spanned, Stmt, Test, UnaryOpKind};
use minijinja::machinery::{Span, Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Value};

use super::Labels;
use super::filter::{FILTERS, FUNCTIONS, OURS, TESTS};
use crate::document::{nearest, suggest};
use crate::model::time::Timestamp;

/// The names a template can use, and what they hold.
pub(super) const NAMES: &[(&str, Shape)] = &[
    ("job.id", Shape::Text),
    ("job.instance_id", Shape::Text),
    ("job.resource_id", Shape::Text),
    ("job.resource_name", Shape::Text),
    ("job.type", Shape::Text),
    ("job.status", Shape::Text),
    ("job.reason", Shape::Text),
    ("job.created_at", Shape::Text),
    ("job.updated_at", Shape::Text),
    ("source.name", Shape::Text),
    ("source.kind", Shape::Text),
    ("source.region", Shape::Text),
    ("source.project_id", Shape::Text),
    ("transition.from", Shape::Text),
    ("transition.to", Shape::Text),
    ("transition.seen_before", Shape::Text),
    ("transition.seen_at", Shape::Text),
    ("transition.skipped", Shape::List),
    ("transition.changed", Shape::List),
    ("transition.late", Shape::Flag),
    ("rule.id", Shape::Text),
    ("rule.about", Shape::Text),
    ("rule.runbook", Shape::Text),
    ("rule.severity", Shape::Text),
    ("rule.labels", Shape::Labels),
    ("alert.id", Shape::Text),
    ("alert.count", Shape::Number),
    ("alert.first_seen", Shape::Text),
    ("alert.held_back", Shape::Number),
    ("reason", Shape::Text),
    ("reason_class", Shape::Text),
    ("now", Shape::Text),
];

/// What `loop` has.
const LOOP: &[&str] = &["index", "index0", "revindex", "revindex0", "first", "last", "length"];
/// A tag of more words and signs than this is no message any more. It bounds how deep the tree can be, and with it the
/// stack that whoever walks it needs.
const TAG_MAX: usize = 300;
/// As many `elif` stand within each other.
const ELIF_MAX: usize = 50;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Text,
    Number,
    Flag,
    /// One of these.
    Scalar,
    /// Of these.
    List,
    /// Of names and values.
    Pairs,
    /// A table that the template makes.
    Table,
    /// The rule's labels.
    Labels,
    /// The fields of [`NAMES`] below this one.
    Fields(&'static str),
    /// What `namespace()` makes: names for what a loop finds out.
    Space,
    /// The loop itself, within one.
    Loop,
}

/// What is wrong with a template: where in its text, what, and the mend.
#[derive(Debug)]
pub(super) struct Flaw {
    pub(super) range: Option<Range<usize>>,
    pub(super) message: String,
    pub(super) help: String,
}

type Proved<T = ()> = Result<T, Flaw>;

/// Refuses a template whose tree would be too deep. Before it is parsed: a deep tree costs a deep stack in each step.
pub(super) fn measure(source: &str) -> Proved {
    let (mut words, mut branches) = (0, 0);
    for token in tokenize(source, false, SyntaxConfig::default()) {
        // What is no token is told by the parser, with its place.
        let Ok((token, span)) = token else { return Ok(()) };
        words = if matches!(token, Token::VariableStart | Token::BlockStart) { 0 } else { words + 1 };
        branches += usize::from(matches!(token, Token::Ident("elif")));
        if words > TAG_MAX || branches > ELIF_MAX {
            let message = format!("this is too much for a message: {TAG_MAX} words in a tag, {ELIF_MAX} `elif`");
            return Err(flaw(span, message, "take it apart with {% set … %}"));
        }
    }
    Ok(())
}

/// Looks at every name in a template that minijinja can read.
pub(super) fn prove(source: &str, labels: &Labels, environment: &Environment<'_>) -> Proved {
    let tree = parse(source, "template", SyntaxConfig::default()).map_err(|error| Flaw::of(&error))?;
    Proof { labels, environment, frames: vec![HashMap::new()] }.statement(&tree)
}

impl Flaw {
    pub(super) fn of(error: &Error) -> Self {
        let message = format!("the template does not work: {}", said(error));
        Self { range: error.range(), message, help: help(error).into() }
    }
}

/// An error in words, without its place.
pub(super) fn said(error: &Error) -> String {
    if error.kind() == ErrorKind::WriteFailure {
        return "it writes too much for a message".to_owned();
    }
    error.detail().map_or_else(|| error.kind().to_string(), |detail| format!("{}: {detail}", error.kind()))
}

/// What mends an error that minijinja has words for, and few.
pub(super) fn help(error: &Error) -> &'static str {
    let unknown_statement = error.detail().is_some_and(|text| text.contains("unknown statement"));
    if matches!(error.kind(), ErrorKind::OutOfFuel | ErrorKind::WriteFailure) {
        "a template may do only so much work, also with the longest reason: simplify it"
    } else if error.kind() == ErrorKind::UndefinedError {
        "not every job has this: {{ … |default(\"\") }}, or {% if … is defined %}"
    } else if error.kind() == ErrorKind::SyntaxError && unknown_statement {
        "a message is one template: if, for, set, with and filter; no macros, blocks or other files"
    } else {
        ""
    }
}

fn flaw(span: Span, message: impl Into<String>, help: impl Into<String>) -> Flaw {
    let range = usize::try_from(span.start_offset).ok().zip(usize::try_from(span.end_offset).ok());
    Flaw { range: range.map(|(from, to)| from..to), message: message.into(), help: help.into() }
}

struct Proof<'a> {
    labels: &'a Labels,
    environment: &'a Environment<'a>,
    /// What the template assigns, the innermost last.
    frames: Vec<HashMap<String, Shape>>,
}

impl Proof<'_> {
    fn statements(&mut self, statements: &[Stmt<'_>]) -> Proved {
        statements.iter().try_for_each(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Stmt<'_>) -> Proved {
        match statement {
            Stmt::Template(template) => self.statements(&template.children),
            Stmt::EmitExpr(emit) => self.shape(&emit.expr).map(drop),
            Stmt::EmitRaw(_) => Ok(()),
            Stmt::ForLoop(each) => {
                if each.recursive {
                    return Err(flaw(each.iter.span(), "a loop cannot call itself here", "remove `recursive`"));
                }
                let item = match self.shape(&each.iter)? {
                    Shape::List | Shape::Labels | Shape::Table | Shape::Fields(_) | Shape::Text | Shape::Scalar => {
                        Shape::Scalar
                    }
                    Shape::Pairs => Shape::List,
                    of @ (Shape::Number | Shape::Flag | Shape::Space | Shape::Loop) => {
                        let message = format!("{} has no items to go through", of.as_str());
                        return Err(flaw(each.iter.span(), message, ""));
                    }
                };
                self.within(|proof| {
                    proof.assign(&each.target, item)?;
                    each.filter_expr.iter().try_for_each(|filter| proof.shape(filter).map(drop))?;
                    proof.put("loop", Shape::Loop);
                    proof.statements(&each.body)
                })?;
                self.within(|proof| proof.statements(&each.else_body))
            }
            Stmt::IfCond(branch) => {
                self.shape(&branch.expr)?;
                let before = self.frames.clone();
                self.statements(&branch.true_body)?;
                let after = std::mem::replace(&mut self.frames, before);
                self.statements(&branch.false_body)?;
                // Known is what both ways assign.
                for (frame, other) in self.frames.iter_mut().zip(after) {
                    frame.retain(|name, shape| match other.get(name).and_then(|other| shape.or(*other)) {
                        Some(either) => {
                            *shape = either;
                            true
                        }
                        None => false,
                    });
                }
                Ok(())
            }
            Stmt::WithBlock(with) => self.within(|proof| {
                for (target, value) in &with.assignments {
                    let shape = proof.shape(value)?;
                    proof.assign(target, shape)?;
                }
                proof.statements(&with.body)
            }),
            Stmt::Set(set) => {
                let shape = self.shape(&set.expr)?;
                self.assign(&set.target, shape)
            }
            Stmt::SetBlock(set) => {
                self.statements(&set.body)?;
                set.filter.iter().try_for_each(|filter| self.shape(filter).map(drop))?;
                self.assign(&set.target, Shape::Scalar)
            }
            Stmt::FilterBlock(block) => {
                self.statements(&block.body)?;
                self.shape(&block.filter).map(drop)
            }
            Stmt::AutoEscape(block) => Err(flaw(block.span(), "`autoescape` has nothing to do here", ESCAPING)),
            Stmt::Do(call) => self.call(&call.call, call.span()).map(drop),
        }
    }

    fn within(&mut self, walk: impl FnOnce(&mut Self) -> Proved) -> Proved {
        self.frames.push(HashMap::new());
        let walked = walk(self);
        self.frames.pop();
        walked
    }

    fn put(&mut self, name: &str, shape: Shape) {
        if let Some(frame) = self.frames.last_mut() {
            frame.insert(name.to_owned(), shape);
        }
    }

    fn assign(&mut self, target: &Expr<'_>, shape: Shape) -> Proved {
        match target {
            Expr::Var(name) => {
                if root(name.id).is_some() || name.id == "loop" {
                    let message = format!("`{}` is a name of jobwatch", name.id);
                    return Err(flaw(name.span(), message, "call it something else"));
                }
                self.put(name.id, shape);
                Ok(())
            }
            Expr::List(list) => list.items.iter().try_for_each(|item| self.assign(item, Shape::Scalar)),
            Expr::Tuple(tuple) => tuple.items.iter().try_for_each(|item| self.assign(item, Shape::Scalar)),
            Expr::GetAttr(field) => match self.shape(&field.expr)? {
                Shape::Space => shape.scalar(field.span()),
                Shape::Text
                | Shape::Number
                | Shape::Flag
                | Shape::Scalar
                | Shape::List
                | Shape::Pairs
                | Shape::Table
                | Shape::Labels
                | Shape::Fields(_)
                | Shape::Loop => {
                    Err(flaw(field.span(), "only a namespace can be changed", "{% set ns = namespace(n=0) %}"))
                }
            },
            Expr::Const(_)
            | Expr::Slice(_)
            | Expr::UnaryOp(_)
            | Expr::BinOp(_)
            | Expr::Compare(_)
            | Expr::IfExpr(_)
            | Expr::Filter(_)
            | Expr::Test(_)
            | Expr::GetItem(_)
            | Expr::Call(_)
            | Expr::Map(_) => Err(flaw(target.span(), "this is no name", "")),
        }
    }

    fn shape(&mut self, expr: &Expr<'_>) -> Proved<Shape> {
        match expr {
            Expr::Var(name) => {
                if let Some(known) = self.frames.iter().rev().find_map(|frame| frame.get(name.id)) {
                    return Ok(*known);
                }
                root(name.id).ok_or_else(|| self.unknown(name.id, name.span()))
            }
            Expr::Const(constant) => {
                let kinds = [
                    (ValueKind::String, Shape::Text),
                    (ValueKind::Number, Shape::Number),
                    (ValueKind::Bool, Shape::Flag),
                ];
                let found = kinds.iter().find(|(kind, _)| *kind == constant.value.kind());
                Ok(found.map_or(Shape::Scalar, |(_, shape)| *shape))
            }
            Expr::Slice(slice) => {
                let shape = self.shape(&slice.expr)?;
                for bound in [&slice.start, &slice.stop, &slice.step].into_iter().flatten() {
                    self.scalar(bound)?;
                }
                match shape {
                    Shape::Text | Shape::Scalar | Shape::List | Shape::Pairs => Ok(shape),
                    Shape::Number
                    | Shape::Flag
                    | Shape::Table
                    | Shape::Labels
                    | Shape::Fields(_)
                    | Shape::Space
                    | Shape::Loop => Err(flaw(slice.span(), format!("{} has no parts to cut out", shape.as_str()), "")),
                }
            }
            Expr::UnaryOp(op) => match op.op {
                UnaryOpKind::Not => self.shape(&op.expr).map(|_| Shape::Flag),
                UnaryOpKind::Neg => self.scalar(&op.expr).map(|()| Shape::Number),
            },
            Expr::BinOp(op) => {
                let shapes = (self.shape(&op.left)?, self.shape(&op.right)?);
                match op.op {
                    BinOpKind::ScAnd | BinOpKind::ScOr => either(shapes, op.span()),
                    BinOpKind::Eq
                    | BinOpKind::Ne
                    | BinOpKind::Lt
                    | BinOpKind::Lte
                    | BinOpKind::Gt
                    | BinOpKind::Gte
                    | BinOpKind::In => Ok(Shape::Flag),
                    BinOpKind::Add
                    | BinOpKind::Sub
                    | BinOpKind::Mul
                    | BinOpKind::Div
                    | BinOpKind::FloorDiv
                    | BinOpKind::Rem
                    | BinOpKind::Pow
                    | BinOpKind::Concat => {
                        shapes.0.scalar(op.left.span())?;
                        shapes.1.scalar(op.right.span())?;
                        let numbers = shapes == (Shape::Number, Shape::Number) && !matches!(op.op, BinOpKind::Concat);
                        Ok(if numbers { Shape::Number } else { Shape::Scalar })
                    }
                }
            }
            Expr::Compare(compare) => {
                self.shape(&compare.expr)?;
                compare.ops.iter().try_for_each(|op| self.shape(&op.expr).map(drop))?;
                Ok(Shape::Flag)
            }
            Expr::IfExpr(branch) => {
                self.shape(&branch.test_expr)?;
                let one = self.shape(&branch.true_expr)?;
                match &branch.false_expr {
                    Some(other) => either((one, self.shape(other)?), branch.span()),
                    None => Ok(one),
                }
            }
            Expr::Filter(filter) => self.filter(filter),
            Expr::Test(test) => self.test(test),
            Expr::GetAttr(field) => {
                let of = self.shape(&field.expr)?;
                self.field(of, field.name, field.span())
            }
            Expr::GetItem(item) => {
                let of = self.shape(&item.expr)?;
                self.shape(&item.subscript_expr)?;
                let key = item.subscript_expr.as_const();
                match (of, key.as_ref().and_then(Value::as_str)) {
                    (Shape::Fields(_) | Shape::Labels, Some(name)) => self.field(of, name, item.span()),
                    (Shape::Fields(_) | Shape::Labels, None) => {
                        Err(flaw(item.span(), "nobody can tell which field this is", "name it: job[\"reason\"]"))
                    }
                    (Shape::Number | Shape::Flag | Shape::Space | Shape::Loop, _) => {
                        Err(flaw(item.span(), format!("{} has no items", of.as_str()), ""))
                    }
                    (Shape::Text | Shape::List | Shape::Pairs, Some(name)) => {
                        let message = format!("{} has items with numbers, and no `{name}`", of.as_str());
                        Err(flaw(item.span(), message, ""))
                    }
                    (Shape::Text | Shape::Scalar | Shape::List | Shape::Table, _) => Ok(Shape::Scalar),
                    (Shape::Pairs, None) => Ok(Shape::List),
                }
            }
            Expr::Call(call) => self.call(call, call.span()),
            Expr::List(list) => list.items.iter().try_for_each(|item| self.scalar(item)).map(|()| Shape::List),
            Expr::Tuple(tuple) => tuple.items.iter().try_for_each(|item| self.scalar(item)).map(|()| Shape::List),
            Expr::Map(map) => {
                map.keys.iter().chain(&map.values).try_for_each(|item| self.scalar(item))?;
                Ok(Shape::Table)
            }
        }
    }

    /// An expression that must be no list or table.
    fn scalar(&mut self, expr: &Expr<'_>) -> Proved {
        self.shape(expr)?.scalar(expr.span())
    }

    /// What stands under a name in something.
    fn field(&self, of: Shape, name: &str, span: Span) -> Proved<Shape> {
        match of {
            Shape::Fields(root) => {
                let path = format!("{root}.{name}");
                let found = NAMES.iter().find(|(known, _)| *known == path);
                found.map(|(_, shape)| *shape).ok_or_else(|| self.unknown(&path, span))
            }
            Shape::Labels if self.labels.contains_key(name) => Ok(Shape::Text),
            Shape::Labels => {
                let known: Vec<&str> = self.labels.keys().map(String::as_str).collect();
                let help = match known.is_empty() {
                    true => "the rule has no labels: labels = { team = \"registry\" }".to_owned(),
                    false => suggest(name, &known),
                };
                Err(flaw(span, format!("unknown variable `rule.labels.{name}`"), help))
            }
            Shape::Loop if LOOP.contains(&name) => Ok(Shape::Scalar),
            Shape::Loop => Err(flaw(span, format!("unknown variable `loop.{name}`"), suggest(name, LOOP))),
            Shape::Text | Shape::Number | Shape::Flag | Shape::Scalar | Shape::List | Shape::Pairs => {
                Err(flaw(span, format!("{} has no `{name}`", of.as_str()), FILTER_INSTEAD))
            }
            Shape::Table | Shape::Space => Ok(Shape::Scalar),
        }
    }

    fn unknown(&self, name: &str, span: Span) -> Flaw {
        let assigned = self.frames.iter().flat_map(HashMap::keys).map(String::as_str);
        let known = NAMES.iter().map(|(known, _)| *known).chain(assigned);
        let help = match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let names: Vec<&str> = NAMES.iter().map(|(known, _)| *known).collect();
                format!("a template can use: {}", names.join(", "))
            }
        };
        flaw(span, format!("unknown variable `{name}`"), help)
    }

    fn call(&mut self, call: &Call<'_>, span: Span) -> Proved<Shape> {
        let shape = match call.identify_call() {
            CallType::Function("range") => Shape::List,
            CallType::Function("namespace") => Shape::Space,
            CallType::Function(name) => {
                return Err(flaw(span, format!("unknown function `{name}`"), suggest(name, FUNCTIONS)));
            }
            CallType::Method(of, name) => {
                let of = self.shape(of)?;
                if of != Shape::Loop || !["cycle", "changed"].contains(&name) {
                    let message = format!("there are no methods such as `.{name}(…)`");
                    return Err(flaw(span, message, FILTER_INSTEAD));
                }
                Shape::Scalar
            }
            CallType::Object(_) => return Err(flaw(span, "this cannot be called", "")),
        };
        self.arguments(&call.args)?;
        Ok(shape)
    }

    /// The arguments of a call, each as what stands there or, where that is known only later, as something like it.
    /// None is a list.
    fn arguments(&mut self, args: &[CallArg<'_>]) -> Proved<Vec<Value>> {
        let (mut values, mut named) = (Vec::new(), Vec::new());
        for arg in args {
            match arg {
                CallArg::Pos(expr) => {
                    self.scalar(expr)?;
                    values.push(self.like(expr)?);
                }
                CallArg::Kwarg(name, expr) => {
                    self.scalar(expr)?;
                    named.push((*name, self.like(expr)?));
                }
                CallArg::PosSplat(expr) | CallArg::KwargSplat(expr) => {
                    return Err(flaw(expr.span(), "each argument is written out here", ""));
                }
            }
        }
        if !named.is_empty() {
            values.push(Value::from(named.into_iter().collect::<Kwargs>()));
        }
        Ok(values)
    }

    fn like(&mut self, expr: &Expr<'_>) -> Proved<Value> {
        let shape = self.shape(expr)?;
        Ok(expr.as_const().unwrap_or_else(|| shape.like()))
    }

    fn filter(&mut self, filter: &Spanned<Filter<'_>>) -> Proved<Shape> {
        let (name, span) = (filter.name, filter.span());
        let of = filter.expr.as_ref().map_or(Ok(Shape::Text), |expr| self.shape(expr))?;
        let literal = filter.expr.as_ref().and_then(Expr::as_const);
        known_filter(name, span)?;
        self.names_in(name, &filter.args, span)?;
        let mut values = self.arguments(&filter.args)?;
        let Some(shape) = of.through(name) else {
            return Err(flaw(span, format!("`{name}` is not for {}", of.as_str()), ""));
        };
        let is_time = |value: &Value| value.as_str().is_none_or(|text| Timestamp::parse(text).is_some());
        if ["in_zone", "ago"].contains(&name) && literal.as_ref().is_some_and(|literal| !is_time(literal)) {
            return Err(flaw(span, "this is no time", "such as job.created_at, transition.seen_at or now"));
        }
        values.insert(0, literal.unwrap_or_else(|| of.like()));
        let ours = OURS.contains(&name) && filter.args.iter().all(is_literal);
        let tried = self.environment.empty_state().apply_filter(name, &values);
        tried.map_or_else(|error| refused_always(name, &error, ours, span), |_| Ok(()))?;
        Ok(shape)
    }

    fn test(&mut self, test: &Spanned<Test<'_>>) -> Proved<Shape> {
        let (name, span) = (test.name, test.span());
        let mut values = vec![self.like(&test.expr)?];
        known_test(name, span)?;
        match test.args.as_slice() {
            // The one test that is about a list.
            [CallArg::Pos(list)] if name == "in" => values.push(self.like(list)?),
            args => values.extend(self.arguments(args)?),
        }
        let tried = self.environment.empty_state().perform_test(name, &values);
        tried.map_or_else(|error| refused_always(name, &error, false, span), |_| Ok(()))?;
        Ok(Shape::Flag)
    }

    /// Filters that are given the name of a filter or a test.
    fn names_in(&self, name: &str, args: &[CallArg<'_>], span: Span) -> Proved {
        let check = match name {
            "map" => known_filter,
            "select" | "reject" if !args.is_empty() => known_test,
            _ => return Ok(()),
        };
        let first = match args.first() {
            Some(CallArg::Pos(expr)) => expr.as_const(),
            Some(CallArg::Kwarg(..) | CallArg::PosSplat(_) | CallArg::KwargSplat(_)) | None => None,
        };
        match first.as_ref().and_then(Value::as_str) {
            Some(inner) => {
                check(inner, span)?;
                let scalar =
                    name != "map" || Shape::Text.through(inner).is_some_and(|shape| shape.scalar(span).is_ok());
                let refused = || flaw(span, format!("`map(\"{inner}\")` would make lists in a list"), "");
                scalar.then_some(()).ok_or_else(refused)
            }
            None => Err(flaw(span, format!("`{name}` needs a name"), "such as map(\"upper\") or select(\"defined\")")),
        }
    }
}

/// A filter or test with made-up values failed: a flaw only if it would with all others as well.
fn refused_always(name: &str, error: &Error, ours: bool, span: Span) -> Proved {
    let counted =
        matches!(error.kind(), ErrorKind::MissingArgument | ErrorKind::TooManyArguments | ErrorKind::OutOfFuel);
    match counted || ours {
        true => Err(flaw(span, format!("`{name}`: {}", said(error)), help(error))),
        false => Ok(()),
    }
}

fn is_literal(arg: &CallArg<'_>) -> bool {
    match arg {
        CallArg::Pos(expr) | CallArg::Kwarg(_, expr) => expr.as_const().is_some(),
        CallArg::PosSplat(_) | CallArg::KwargSplat(_) => false,
    }
}

/// What one of two is.
fn either((one, other): (Shape, Shape), span: Span) -> Proved<Shape> {
    let mixed = || flaw(span, format!("this is now {} and now {}", one.as_str(), other.as_str()), "");
    one.or(other).ok_or_else(mixed)
}

const ESCAPING: &str = "remove it: text is escaped by each receiver for what it is there";
const FILTER_INSTEAD: &str = "write a filter instead: {{ reason|split(\":\") }}";

fn known_filter(name: &str, span: Span) -> Proved {
    if FILTERS.iter().any(|(known, ..)| *known == name) {
        return Ok(());
    }
    let help = match name {
        "e" | "escape" | "safe" => ESCAPING.to_owned(),
        _ => suggest(name, &FILTERS.iter().map(|(known, ..)| *known).collect::<Vec<_>>()),
    };
    Err(flaw(span, format!("unknown filter `{name}`"), help))
}

fn known_test(name: &str, span: Span) -> Proved {
    match TESTS.contains(&name) {
        true => Ok(()),
        false => Err(flaw(span, format!("unknown test `{name}`"), suggest(name, TESTS))),
    }
}

/// What stands under a name at the top of the context.
fn root(name: &str) -> Option<Shape> {
    NAMES.iter().find_map(|(known, shape)| match known.split_once('.') {
        Some((root, _)) => (root == name).then_some(Shape::Fields(root)),
        None => (*known == name).then_some(*shape),
    })
}

impl Shape {
    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "a text",
            Self::Number => "a number",
            Self::Flag => "a yes or no",
            Self::Scalar => "a text or a number",
            Self::List | Self::Pairs => "a list",
            Self::Table | Self::Labels | Self::Fields(_) => "a table",
            Self::Space => "a namespace",
            Self::Loop => "a loop",
        }
    }

    /// Refuses lists and tables.
    fn scalar(self, span: Span) -> Proved {
        match self {
            Self::Text | Self::Number | Self::Flag | Self::Scalar => Ok(()),
            Self::List | Self::Pairs | Self::Table | Self::Labels | Self::Fields(_) | Self::Space | Self::Loop => {
                Err(flaw(span, format!("{} cannot stand here", self.as_str()), "such as {{ list|join(\", \") }}"))
            }
        }
    }

    /// This or another; `None` if only one of them is a list or a table, or they are different ones.
    fn or(self, other: Self) -> Option<Self> {
        let none = Span::default();
        match (self == other, self.scalar(none).is_ok() && other.scalar(none).is_ok()) {
            (true, _) => Some(self),
            (false, true) => Some(Self::Scalar),
            (false, false) => None,
        }
    }

    /// What a filter makes of it; `None` if it is not for that.
    fn through(self, filter: &str) -> Option<Self> {
        let scalar = self.scalar(Span::default()).is_ok();
        let texts = matches!(self, Self::Text | Self::Scalar);
        let table = matches!(self, Self::Table | Self::Labels);
        match filter {
            "in_zone" | "ago" | "duration" | "shorten" | "upper" | "lower" | "title" | "capitalize" | "trim"
            | "replace" | "indent" | "string" => scalar.then_some(Self::Text),
            "int" | "float" | "round" | "abs" => scalar.then_some(Self::Number),
            "default" => scalar.then_some(Self::Scalar),
            "length" => Some(Self::Number),
            "split" | "lines" => scalar.then_some(Self::List),
            "join" => (texts || table || self == Self::List).then_some(Self::Text),
            "first" | "last" | "min" | "max" | "list" | "sort" | "unique" | "select" | "reject"
                if self == Self::Pairs =>
            {
                let one = matches!(filter, "first" | "last" | "min" | "max");
                Some(if one { Self::List } else { Self::Pairs })
            }
            "first" | "last" | "min" | "max" => (texts || self == Self::List).then_some(Self::Scalar),
            "sum" => (self == Self::List).then_some(Self::Scalar),
            "reverse" if texts => Some(Self::Scalar),
            "reverse" if self == Self::Pairs => Some(Self::Pairs),
            "list" | "sort" | "unique" | "reverse" | "select" | "reject" => {
                (texts || table || self == Self::List).then_some(Self::List)
            }
            "map" => (texts || table || self == Self::List).then_some(Self::List),
            "items" | "dictsort" => table.then_some(Self::Pairs),
            _ => None,
        }
    }

    /// A value of this shape.
    fn like(self) -> Value {
        match self {
            Self::Text | Self::Loop | Self::Scalar => Value::from("sample"),
            Self::Number => Value::from(1),
            Self::Flag => Value::from(true),
            Self::List => Value::from(vec!["sample"]),
            Self::Pairs => Value::from(vec![vec!["sample", "sample"]]),
            Self::Table | Self::Labels | Self::Fields(_) | Self::Space => {
                Value::from(BTreeMap::from([("sample", "sample")]))
            }
        }
    }
}
