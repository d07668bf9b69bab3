"""A self-test in Verilog: recorded bytes of the serial line, orders and answers, for any simulator."""

from __future__ import annotations

import numpy as np

from nervecord.compiler.ops import Array
from nervecord.compiler.plan.interpret import Machine
from nervecord.targets.fpga.instructions import Microcode
from nervecord.targets.fpga.parts import Interface
from nervecord.targets.fpga.serial import Protocol

SEED = 0


def recorded(core: Interface, protocol: Protocol, blocks: int) -> tuple[list[bytes], list[bytes]]:
    """Orders, and the answer to each, of so many blocks by the definition, whose input is drawn from a fixed seed."""
    rng = np.random.default_rng(SEED)
    machine = Machine(core.code.layout.plan)
    orders, answers = [b"V", b"?", b"Z"], [protocol.greeting, b"e\x01", b"z"]
    for _ in range(blocks):
        entered = drawn(core.code, rng)
        numbers = core.code.entering(entered, 0)
        steps = [machine.step({name: rows[k] for name, rows in entered.items()}) for k in range(core.code.window)]
        data = packed(numbers, protocol.in_bytes)
        orders += [b"W" + data + bytes([sum(data) % 256]), b"S", b"R"]
        answer = packed(left(core, steps), protocol.out_bytes)
        answers += [b"w", b"s", b"r" + answer + bytes([sum(answer) % 256])]
    return orders, answers


def packed(numbers: Array, size: int) -> bytes:
    """Numbers as the serial line has them."""
    return b"".join(int(x).to_bytes(size, "little", signed=True) for x in numbers)


def drawn(code: Microcode, rng: np.random.Generator) -> dict[str, Array]:
    """What enters in a block: entry -> (window, 1, n), within what each may be."""
    entering: dict[str, Array] = {}
    layout = code.layout
    steps = layout.plan.schedule.steps
    for entrance in layout.entrances:
        if entrance.name in entering:
            continue
        high = max(min(entrance.high, entrance.low + 2 * entrance.high // 3), entrance.low)
        rows = rng.integers(entrance.low, high, endpoint=True, size=(entrance.rows, entrance.size))
        if entrance.fixed:
            rows[:, entrance.given :] = entrance.fixed
        block = np.zeros((layout.window, 1, entrance.size), dtype=np.int64)
        block[:steps, 0] = rows if entrance.rows > 1 else np.broadcast_to(rows, (steps, entrance.size))
        entering[entrance.name] = block
    return entering


def left(core: Interface, steps: list[dict[str, Array]]) -> Array:
    """The numbers that leave the core."""
    parts = []
    for end in core.code.layout.exits:
        rows = np.stack([values[end.population].ravel() for values in steps[end.first : end.last + 1]])
        parts.append(rows.ravel() if end.rows else rows.sum(axis=0))
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


def bench_text(name: str, divider: int, patience: int, orders: list[bytes], answers: list[bytes]) -> str:
    """The bench; it reads bench_orders.hex and bench_answers.hex: a length, then as many bytes, for each.

    It ends with a code that is not 0 where an answer is wrong, or is `patience` cycles late.
    """
    order_bytes, answer_bytes = sum(map(len, orders)), sum(map(len, answers))
    return f"""\
`timescale 1ns / 1ps
/* Written by nervecord: sends recorded orders on the serial line and compares the answers. */
module {name}_bench;
    localparam DIVIDER = {divider}, EXCHANGES = {len(orders)}, PATIENCE = {patience};
    reg clk = 0, rx = 1;
    wire tx;
    reg [15:0] order_length [0:EXCHANGES - 1], answer_length [0:EXCHANGES - 1];
    reg [7:0] order [0:{order_bytes - 1}], answer [0:{answer_bytes - 1}];
    integer k, i, b, at = 0, got = 0, wrong = 0, waited = 0;
    reg [7:0] byte_in;

    {name} dut (.clk(clk), .rx(rx), .tx(tx));
    always #5 clk = ~clk;

    task bit_time;
        repeat (DIVIDER) @(posedge clk);
    endtask

    task send(input [7:0] value);
        begin
            repeat (DIVIDER / 2) @(posedge clk);
            rx = 0;
            bit_time;
            for (b = 0; b < 8; b = b + 1) begin
                rx = value[b];
                bit_time;
            end
            rx = 1;
            /* Half of the stop bit: an answer may begin in its middle. */
            repeat (DIVIDER / 2) @(posedge clk);
        end
    endtask

    task receive;
        begin
            waited = 0;
            while (tx) begin
                @(posedge clk);
                waited = waited + 1;
                if (waited > PATIENCE) $fatal(1, "self-test FAILED: exchange %0d, byte %0d does not come", k, i);
            end
            repeat (DIVIDER + DIVIDER / 2) @(posedge clk);
            for (b = 0; b < 8; b = b + 1) begin
                byte_in[b] = tx;
                bit_time;
            end
        end
    endtask

    initial begin
        $readmemh("bench_order_lengths.hex", order_length);
        $readmemh("bench_answer_lengths.hex", answer_length);
        $readmemh("bench_orders.hex", order);
        $readmemh("bench_answers.hex", answer);
        repeat (16) @(posedge clk);
        for (k = 0; k < EXCHANGES; k = k + 1) begin
            for (i = 0; i < order_length[k]; i = i + 1) begin
                send(order[at]);
                at = at + 1;
            end
            for (i = 0; i < answer_length[k]; i = i + 1) begin
                receive;
                if (byte_in !== answer[got]) begin
                    wrong = wrong + 1;
                    $display("exchange %0d, byte %0d: %h, not %h", k, i, byte_in, answer[got]);
                end
                got = got + 1;
            end
        end
        if (wrong == 0) $display("self-test passed: %0d bytes", got);
        else $fatal(1, "self-test FAILED: %0d of %0d bytes are wrong", wrong, got);
        $finish;
    end
endmodule
"""


def bench_files(name: str, divider: int, patience: int, orders: list[bytes], answers: list[bytes]) -> dict[str, str]:
    """The bench and what it reads."""
    return {
        f"{name}_bench.v": bench_text(name, divider, patience, orders, answers),
        "bench_order_lengths.hex": "".join(f"{len(x):04x}\n" for x in orders),
        "bench_answer_lengths.hex": "".join(f"{len(x):04x}\n" for x in answers),
        "bench_orders.hex": "".join(f"{byte:02x}\n" for x in orders for byte in x),
        "bench_answers.hex": "".join(f"{byte:02x}\n" for x in answers for byte in x),
    }
