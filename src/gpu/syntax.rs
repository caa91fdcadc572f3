//! A walk over WESL's syntax tree; WESL keeps its own to itself.

use wesl::syntax::{
    CompoundStatement, Expression, ExpressionNode, GlobalDeclaration, Statement, TranslationUnit,
};

type Visitor<'a> = &'a mut dyn FnMut(&mut Expression);

/// Calls `visit` on every expression of every function body, the inner ones first.
pub fn for_each_expression(unit: &mut TranslationUnit, visit: Visitor) {
    for declaration in &mut unit.global_declarations {
        if let GlobalDeclaration::Function(function) = declaration.node_mut() {
            block(&mut function.body, visit);
        }
    }
}

fn block(block: &mut CompoundStatement, visit: Visitor) {
    block.statements.iter_mut().for_each(|it| statement(it, visit));
}

fn statement(it: &mut Statement, visit: Visitor) {
    match it {
        Statement::Compound(it) => block(it, visit),
        Statement::Assignment(it) => expressions([&mut it.lhs, &mut it.rhs], visit),
        Statement::Increment(it) => expression(&mut it.expression, visit),
        Statement::Decrement(it) => expression(&mut it.expression, visit),
        Statement::If(it) => {
            expression(&mut it.if_clause.expression, visit);
            block(&mut it.if_clause.body, visit);
            for clause in &mut it.else_if_clauses {
                expression(&mut clause.expression, visit);
                block(&mut clause.body, visit);
            }
            it.else_clause.iter_mut().for_each(|clause| block(&mut clause.body, visit));
        }
        Statement::Switch(it) => {
            expression(&mut it.expression, visit);
            it.clauses.iter_mut().for_each(|clause| block(&mut clause.body, visit));
        }
        Statement::Loop(it) => {
            block(&mut it.body, visit);
            if let Some(continuing) = &mut it.continuing {
                block(&mut continuing.body, visit);
                expressions(continuing.break_if.iter_mut().map(|it| &mut it.expression), visit);
            }
        }
        Statement::For(it) => {
            it.initializer.iter_mut().chain(&mut it.update).for_each(|it| statement(it, visit));
            expressions(&mut it.condition, visit);
            block(&mut it.body, visit);
        }
        Statement::While(it) => {
            expression(&mut it.condition, visit);
            block(&mut it.body, visit);
        }
        Statement::Return(it) => expressions(&mut it.expression, visit),
        Statement::FunctionCall(it) => expressions(&mut it.call.arguments, visit),
        Statement::Declaration(it) => expressions(&mut it.initializer, visit),
        Statement::Void
        | Statement::Break(_)
        | Statement::Continue(_)
        | Statement::Discard(_)
        | Statement::ConstAssert(_) => {}
    }
}

fn expressions<'a>(all: impl IntoIterator<Item = &'a mut ExpressionNode>, visit: Visitor) {
    all.into_iter().for_each(|it| expression(it, visit));
}

fn expression(it: &mut Expression, visit: Visitor) {
    match it {
        Expression::Parenthesized(it) => expression(&mut it.expression, visit),
        Expression::NamedComponent(it) => expression(&mut it.base, visit),
        Expression::Indexing(it) => expressions([&mut it.base, &mut it.index], visit),
        Expression::Unary(it) => expression(&mut it.operand, visit),
        Expression::Binary(it) => expressions([&mut it.left, &mut it.right], visit),
        Expression::FunctionCall(it) => expressions(&mut it.arguments, visit),
        Expression::Literal(_) | Expression::TypeOrIdentifier(_) => {}
    }
    visit(it);
}
