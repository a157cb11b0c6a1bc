//! Regular expressions over whole values, each bounded in what it costs to read, to keep and to match.
//!
//! An expression is weighed as it is written, before classes are built from it; its automaton grows under a limit; and
//! matching takes time in proportion to value and automaton, whatever the expression.

use std::fmt;
use std::sync::Arc;

use regex_automata::hybrid::dfa::{self, Cache, DFA};
use regex_automata::nfa::thompson::pikevm::PikeVM;
use regex_automata::nfa::thompson::{Compiler, Config, NFA, WhichCaptures};
use regex_automata::util::pool::Pool;
use regex_automata::{Anchored, Input};
use regex_syntax::ast::{self, Ast, ClassSetItem, Flags, FlagsItemKind};
use regex_syntax::hir::translate::TranslatorBuilder;
use regex_syntax::hir::{Hir, Look};

use crate::limits::{Budget, MAX_EXPRESSION_BYTES};

/// Depth of parentheses; what translates and compiles goes down with them.
const MAX_NESTING: u32 = 50;
/// About as many ranges as the large Unicode classes have.
const RANGES_OF_CLASS: usize = 800;
/// Looking for the other cases of so many characters costs as much as a range.
const FOLDED_AS_A_RANGE: usize = 32;
/// The lazy automaton that matching builds, in relation to the one that is kept: it may not hold more for every thread.
const CACHE_FACTOR: usize = 4;

type Caches = Pool<Cache, Box<dyn Fn() -> Cache + Send + Sync>>;

/// A compiled expression. Clones share it.
#[derive(Clone)]
pub(crate) struct Expression(Arc<Compiled>);

struct Compiled {
    lazy: Arc<DFA>,
    caches: Caches,
    /// Where the lazy automaton gives up: at word boundaries beside characters that are not ASCII, and when it thrashes.
    steady: PikeVM,
}

impl Expression {
    /// Compiles `^(?s:text)$` and takes what it costs from `budget`.
    pub(crate) fn compile(text: &str, budget: &mut Budget) -> Result<Self, String> {
        let ast = ast::parse::ParserBuilder::new().nest_limit(MAX_NESTING).build().parse(text);
        let ast = ast.map_err(|error| sentence(error.kind()))?;
        let ranges = ast::visit(&ast, Weigher::default()).unwrap_or(usize::MAX);
        budget.ranges = budget.ranges.checked_sub(ranges).ok_or_else(|| {
            sentence("it and those before it hold too many classes of characters; write fewer, or (?-u:...) for ASCII")
        })?;
        let hir = TranslatorBuilder::new().dot_matches_new_line(true).build().translate(text, &ast);
        let hir = hir.map_err(|error| sentence(error.kind()))?;
        let anchored = Hir::concat(vec![Hir::look(Look::Start), hir, Hir::look(Look::End)]);
        let limit = MAX_EXPRESSION_BYTES.min(budget.bytes);
        let config = Config::new().nfa_size_limit(Some(limit)).which_captures(WhichCaptures::None);
        let nfa =
            Compiler::new().configure(config).build_from_hir(&anchored).map_err(|error| too_large(&error, limit))?;
        budget.bytes = budget.bytes.saturating_sub(nfa.memory_usage());
        Self::of(nfa).map_err(sentence)
    }

    fn of(nfa: NFA) -> Result<Self, String> {
        let config = dfa::Config::new()
            .unicode_word_boundary(true)
            .cache_capacity(CACHE_FACTOR * nfa.memory_usage())
            .skip_cache_capacity_check(true)
            .minimum_cache_clear_count(Some(3))
            .minimum_bytes_per_state(Some(10));
        let lazy = DFA::builder().configure(config).build_from_nfa(nfa.clone()).map_err(|error| error.to_string())?;
        let steady = PikeVM::builder().build_from_nfa(nfa).map_err(|error| error.to_string())?;
        let lazy = Arc::new(lazy);
        let fresh = Arc::clone(&lazy);
        let caches: Caches = Pool::new(Box::new(move || fresh.create_cache()));
        Ok(Self(Arc::new(Compiled { lazy, caches, steady })))
    }

    pub(crate) fn matches(&self, value: &str) -> bool {
        let input = Input::new(value).anchored(Anchored::Yes).earliest(true);
        let quick = self.0.lazy.try_search_fwd(&mut self.0.caches.get(), &input);
        quick.map_or_else(|_| self.0.steady.is_match(&mut self.0.steady.create_cache(), input), |end| end.is_some())
    }

    /// Bytes of the automaton.
    pub(crate) fn size(&self) -> usize {
        self.0.steady.get_nfa().memory_usage()
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Expression({} bytes)", self.size())
    }
}

fn sentence(reason: impl fmt::Display) -> String {
    format!("the regular expression cannot be used: {reason}")
}

fn too_large(error: &regex_automata::nfa::thompson::BuildError, limit: usize) -> String {
    match error.size_limit() {
        Some(_) if limit == MAX_EXPRESSION_BYTES => sentence(format_args!(
            "its compiled size is over {} KiB; write fewer or smaller repetitions, or (?-u:\\w) for ASCII letters",
            MAX_EXPRESSION_BYTES >> 10
        )),
        Some(_) => sentence("its compiled size and that of those before it is too large together"),
        None => sentence(error),
    }
}

/// Counts the ranges that classes will be built from.
#[derive(Default)]
struct Weigher {
    ranges: usize,
    /// Sorting a class again for each item costs by what it holds already.
    sorting: usize,
    /// Characters within classes, whose other cases are looked for one by one where case is ignored.
    characters: usize,
    ignores_case: bool,
}

impl Weigher {
    fn class(&mut self) {
        self.item(RANGES_OF_CLASS);
        self.characters += 64 * RANGES_OF_CLASS;
    }

    fn item(&mut self, ranges: usize) {
        self.sorting += self.ranges / 64;
        self.ranges += ranges;
    }

    fn flags(&mut self, flags: &Flags) {
        self.ignores_case |=
            flags.items.iter().any(|item| item.kind == FlagsItemKind::Flag(ast::Flag::CaseInsensitive));
    }
}

impl ast::Visitor for Weigher {
    type Output = usize;
    type Err = std::convert::Infallible;

    fn finish(self) -> Result<usize, Self::Err> {
        let folding = if self.ignores_case { self.characters / FOLDED_AS_A_RANGE } else { 0 };
        Ok(self.ranges.saturating_add(self.sorting).saturating_add(folding))
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), Self::Err> {
        match ast {
            Ast::ClassUnicode(_) | Ast::ClassPerl(_) => self.class(),
            Ast::Flags(set) => self.flags(&set.flags),
            Ast::Group(group) => {
                if let Some(flags) = group.flags() {
                    self.flags(flags);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), Self::Err> {
        match item {
            ClassSetItem::Unicode(_) | ClassSetItem::Perl(_) => self.class(),
            ClassSetItem::Range(range) => {
                self.item(1);
                self.characters += (u32::from(range.end.c) as usize).saturating_sub(u32::from(range.start.c) as usize);
            }
            // A class within a class is sorted into it.
            ClassSetItem::Literal(_) | ClassSetItem::Ascii(_) | ClassSetItem::Bracketed(_) => self.item(1),
            ClassSetItem::Empty(_) | ClassSetItem::Union(_) => {}
        }
        Ok(())
    }
}
