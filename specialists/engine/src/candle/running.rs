//! A step under way on a device of candle.
//!
//! Rows stay on the device from the embedding to the logits, but for what lies between projections, which the host
//! computes.  What candle cannot do is an error that is kept: nothing is computed after it, and the step fails.

use candle::{D, Device, Error, Result, Tensor};
use candle_core as candle;

use super::backbone::Backbone;
use super::place::Experts;
use super::weights::{activate, sigmoid};
use crate::kernels::{Activations, Matrix, matmul};
use crate::model::Model;
use crate::parts::{Attention, DeltaNet, Dense, Groups, Linear, Norm, Routed, Shared};
use crate::run::{self, Rows};
use crate::step::{Ran, Step};

pub(super) struct Running<'r, 'a, 'b> {
    on: On<'r>,
    experts: &'r Experts,
    step: &'r mut Step<'a, 'b>,
    /// What each [`Rows`] stands for; nothing after an error.
    rows: Vec<Option<Tensor>>,
    /// Those that stand for nothing.
    free: Vec<usize>,
    /// Of the routed layers so far.
    ran: Vec<Layer>,
    failed: Option<Error>,
}

/// The device, and what is always there.
#[derive(Clone, Copy)]
struct On<'r> {
    device: &'r Device,
    backbone: &'r Backbone,
}

/// What a routed layer did, but for the norms of its outputs, which are on the device until the step ends.
struct Layer {
    index: usize,
    ran: Vec<Ran>,
    /// Which row and rank each of the norms is of.
    pairs: Vec<(usize, usize)>,
    /// [pairs]
    norms: Tensor,
}

/// Numbers of a tensor; waits until they are there.
fn numbers(x: &Tensor) -> Result<Vec<f32>> {
    x.flatten_all()?.to_vec1()
}

impl<'r> On<'r> {
    /// [rows, dim]
    fn upload(self, numbers: Vec<f32>, dim: usize) -> Result<Tensor> {
        Tensor::from_vec(numbers, ((), dim), self.device)
    }

    fn vector(self, numbers: &[f32]) -> Result<Tensor> {
        match self.backbone.vector(numbers) {
            Some(there) => Ok(there.clone()),
            None => Tensor::new(numbers, self.device),
        }
    }

    fn product(self, matrix: &Matrix, x: &Tensor) -> Result<Tensor> {
        if let Some(product) = self.backbone.matrix(matrix) {
            return product.forward(x);
        }
        let rows = numbers(x)?;
        let mut rows = Activations::new(&rows, matrix.k);
        let mut out = vec![0f32; rows.rows() * matrix.rows];
        matmul(matrix, &mut rows, &mut out);
        self.upload(out, matrix.rows)
    }

    fn linear(self, linear: &Linear, x: &Tensor) -> Result<Tensor> {
        let out = self.product(&linear.weight, x)?;
        match linear.bias() {
            Some(bias) => out.broadcast_add(&self.vector(bias)?),
            None => Ok(out),
        }
    }

    fn norm(self, norm: &Norm, x: &Tensor) -> Result<Tensor> {
        let scale = (x.sqr()?.mean_keepdim(D::Minus1)? + f64::from(norm.eps))?.sqrt()?.recip()?;
        x.broadcast_mul(&scale)?.broadcast_mul(&self.vector(norm.weight.get())?)
    }

    /// What several give of the same rows, on the host.
    fn projected(self, of: &[&Linear], x: &Tensor) -> Result<Vec<Vec<f32>>> {
        let outs: Result<Vec<Tensor>> = of.iter().map(|linear| self.linear(linear, x)).collect();
        // In one piece, to wait but once.
        let all = Tensor::cat(&outs?, D::Minus1)?;
        let (all, row) = (numbers(&all)?, all.dim(D::Minus1)?);
        let mut from = 0;
        let each = of.iter().map(|linear| {
            let piece = from..from + linear.weight.rows;
            from = piece.end;
            all.chunks_exact(row).flat_map(|row| &row[piece.clone()]).copied().collect()
        });
        Ok(each.collect())
    }

    fn dense(self, dense: &Dense, x: &Tensor) -> Result<Tensor> {
        let (gate, up) = (self.linear(&dense.gate, x)?, self.linear(&dense.up, x)?);
        self.linear(&dense.down, &activate(dense.activation, gate, up)?)
    }

    fn shared(self, shared: &Shared, x: &Tensor) -> Result<Tensor> {
        let gate = self.vector(shared.gate.get())?;
        let open = sigmoid(&x.broadcast_mul(&gate)?.sum_keepdim(D::Minus1)?)?;
        self.dense(&shared.dense, x)?.broadcast_mul(&open)
    }
}

impl<'r, 'a, 'b> Running<'r, 'a, 'b> {
    pub fn new(
        device: &'r Device,
        backbone: &'r Backbone,
        experts: &'r Experts,
        step: &'r mut Step<'a, 'b>,
    ) -> Self {
        let (rows, free, ran) = (Vec::new(), Vec::new(), Vec::new());
        let on = On { device, backbone };
        Running { on, experts, step, rows, free, ran, failed: None }
    }

    /// Logits of the rows that are wanted, [wanted, vocab].
    pub fn run(mut self, model: &Model, tokens: &[u32], wanted: &[usize]) -> Result<Vec<f32>> {
        let dim = model.shape().dim;
        let mut x = vec![0f32; tokens.len() * dim];
        for (&token, x) in tokens.iter().zip(x.chunks_exact_mut(dim)) {
            model.embed(token, x);
        }
        self.rows.push(Some(self.on.upload(x, dim)?));
        let x = Rows(0);
        for layer in &model.layers {
            layer.forward(&mut self, &x);
        }
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.tap()?;
        if wanted.is_empty() {
            return Ok(Vec::new());
        }
        let rows: Vec<u32> = wanted.iter().map(|row| *row as u32).collect();
        let rows = Tensor::new(rows, self.on.device)?;
        let normed = self.on.norm(&model.output_norm, &self.at(&x)?.index_select(&rows, 0)?)?;
        let mut logits = numbers(&self.on.product(&model.output, &normed)?)?;
        model.bend(&numbers(&normed)?, &mut logits);
        Ok(logits)
    }

    /// Counts what the routers did.
    fn tap(&mut self) -> Result<()> {
        if self.ran.is_empty() {
            return Ok(());
        }
        let norms: Vec<&Tensor> = self.ran.iter().map(|layer| &layer.norms).collect();
        let mut norms = numbers(&Tensor::cat(&norms, 0)?)?.into_iter();
        for Layer { index, mut ran, pairs, .. } in std::mem::take(&mut self.ran) {
            for ((row, rank), norm) in pairs.into_iter().zip(&mut norms) {
                ran[row].ran[rank].2 = norm;
            }
            self.step.tap(index, ran);
        }
        Ok(())
    }

    fn at(&self, rows: &Rows) -> Result<Tensor> {
        self.rows[rows.0].clone().ok_or_else(|| Error::msg("rows that nobody made"))
    }

    /// Numbers that come of an operation, unless one failed before.
    fn make(&mut self, operation: impl FnOnce(&mut Self) -> Result<Tensor>) -> Rows {
        let made = match &self.failed {
            Some(_) => None,
            None => operation(self).map_err(|error| self.failed = Some(error)).ok(),
        };
        match self.free.pop() {
            Some(free) => {
                self.rows[free] = made;
                Rows(free)
            }
            None => {
                self.rows.push(made);
                Rows(self.rows.len() - 1)
            }
        }
    }

    /// The same in place of other rows.
    fn change(&mut self, x: &Rows, operation: impl FnOnce(&mut Self) -> Result<Tensor>) {
        let Rows(made) = self.make(operation);
        self.rows[x.0] = self.rows[made].take();
        self.free.push(made);
    }

    /// What the routed experts make of rows.
    fn experts(
        &mut self,
        routed: &Routed,
        layer: usize,
        [router, x]: [&Tensor; 2],
    ) -> Result<Tensor> {
        let (on, top_k, dim) = (self.on, routed.top_k, x.dim(D::Minus1)?);
        let logits = numbers(&on.linear(&routed.router, router)?)?;
        let ran = routed.route(self.step, layer, &logits);
        let groups = Groups::of(&ran, routed.experts.len());
        let absent = routed.prepare(self.step, layer, &groups);
        // Who leaves meanwhile stays until it was computed.
        let there: Vec<_> = groups.used.iter().map(|&e| self.experts.get(layer, e)).collect();
        let outside = groups.used.iter().zip(&there).filter(|(_, there)| there.is_none());
        let outside: Vec<usize> = outside.map(|(&e, _)| e).collect();
        let mut by_host = Vec::new();
        if !outside.is_empty() {
            let rows = numbers(x)?;
            by_host = routed.experts_of(&outside, &groups, &mut Activations::new(&rows, dim));
        }
        let picks: Vec<u32> = groups.all().map(|&(row, _)| row as u32).collect();
        let picked = x.index_select(&Tensor::new(picks, on.device)?, 0)?;
        let (mut outputs, mut from) = (Vec::with_capacity(groups.used.len()), 0);
        for (&e, there) in groups.used.iter().zip(there) {
            let rows = groups.of_expert(e).len();
            outputs.push(match there {
                Some(expert) => {
                    expert.forward(routed.activation, &picked.narrow(0, from, rows)?)?
                }
                None => {
                    let rest = by_host.split_off(rows * dim);
                    on.upload(std::mem::replace(&mut by_host, rest), dim)?
                }
            });
            from += rows;
        }
        self.step.experts.passed(layer, &groups.used, absent);

        let outputs = Tensor::cat(&outputs, 0)?;
        // Where each row's ranks are among them; what a row has too few of counts for nothing.
        let pairs: Vec<(usize, usize)> = groups.all().copied().collect();
        let mut at = vec![0u32; ran.len() * top_k];
        let mut gates = vec![0f32; ran.len() * top_k];
        for (i, &(row, rank)) in (0..).zip(&pairs) {
            at[row * top_k + rank] = i;
            gates[row * top_k + rank] = ran[row].ran[rank].1;
        }
        let gates = Tensor::from_vec(gates, (ran.len(), top_k, 1), on.device)?;
        let by_row = outputs.index_select(&Tensor::new(at, on.device)?, 0)?;
        let out = by_row.reshape((ran.len(), top_k, dim))?.broadcast_mul(&gates)?.sum(1)?;
        let norms = outputs.sqr()?.sum(D::Minus1)?.sqrt()?;
        self.ran.push(Layer { index: layer, ran, pairs, norms });
        Ok(out)
    }
}

impl run::Run for Running<'_, '_, '_> {
    fn norm(&mut self, norm: &Norm, x: &Rows) -> Rows {
        self.make(|run| run.on.norm(norm, &run.at(x)?))
    }

    fn add(&mut self, to: &Rows, from: Rows) {
        self.change(to, |run| run.at(to)?.add(&run.at(&from)?));
        run::Run::give_back(self, from);
    }

    fn scale(&mut self, x: &Rows, by: f32) {
        self.change(x, |run| run.at(x)? * f64::from(by));
    }

    fn attention(&mut self, attention: &Attention, normed: Rows) -> Rows {
        let out = self.make(|run| {
            let projected = run.on.projected(&attention.projections(), &run.at(&normed)?)?;
            let between = attention.between(run.step, projected);
            run.on.linear(&attention.o, &run.on.upload(between, attention.o.weight.k)?)
        });
        run::Run::give_back(self, normed);
        out
    }

    fn delta(&mut self, delta: &DeltaNet, layer: usize, normed: Rows) -> Rows {
        let out = self.make(|run| {
            let projected = run.on.projected(&delta.projections(), &run.at(&normed)?)?;
            let between = delta.between(run.step, layer, projected);
            run.on.linear(&delta.out, &run.on.upload(between, delta.out.weight.k)?)
        });
        run::Run::give_back(self, normed);
        out
    }

    fn dense(&mut self, dense: &Dense, normed: &Rows) -> Rows {
        self.make(|run| run.on.dense(dense, &run.at(normed)?))
    }

    fn routed(&mut self, routed: &Routed, layer: usize, router: &Rows, normed: &Rows) -> Rows {
        self.make(|run| {
            let (router, normed) = (run.at(router)?, run.at(normed)?);
            run.experts(routed, layer, [&router, &normed])
        })
    }

    fn shared(&mut self, shared: &Shared, normed: &Rows) -> Rows {
        self.make(|run| run.on.shared(shared, &run.at(normed)?))
    }

    fn give_back(&mut self, rows: Rows) {
        self.rows[rows.0] = None;
        self.free.push(rows.0);
    }
}
