// SPDX-License-Identifier: Apache-2.0
//
// Cuts the stream of lines into what the commands say, in the fetcher's order: lines of the Program, or blocks, after which a
// block of ones may have to be added (the plane that completes a slice). One line a cycle; a block of ones costs a cycle.
module collector #(
  parameter int unsigned Commands = 32        // queued; a power of two
) (
  input  logic         clk_i,
  input  logic         rst_ni,
  input  logic         flush_i,               // forget everything

  input  logic         cmd_valid_i,
  output logic         cmd_ready_o,
  input  logic [31:0]  cmd_count_i,           // blocks or lines, at least 1
  input  logic         cmd_ones_i,
  input  logic         cmd_program_i,

  input  logic [codesign_pkg::Ports*128-1:0] line_i,
  input  logic         line_valid_i,
  output logic         line_ready_o,

  output logic         program_we_o,          // a line of the Program stands on line_i
  output logic         block_push_o,
  output logic [codesign_pkg::BlockBits-1:0] block_o,
  input  logic         block_room_i           // for two blocks at least
);
  localparam int unsigned Lines    = codesign_pkg::BlockLines;
  localparam int unsigned LineBits = codesign_pkg::Ports * 128;
  localparam int unsigned PartBits = (Lines > 1) ? $clog2(Lines) : 1;

  logic                queue_full, queue_valid, load, active_q, take, last_part, finish;
  logic [31:0]         queue_count, left_q;         // blocks or lines of this command still to be completed
  logic                queue_ones, queue_program, ones_q, program_q, last_q, add_ones_q, add, push_q;
  logic [PartBits-1:0] part_q;
  logic [Lines-1:0][LineBits-1:0] block_q;

  sync_fifo #(
    .Width(34),
    .Depth(Commands)
  ) u_commands (
    .clk_i,
    .rst_ni,
    .clear_i(flush_i),
    .push_i (cmd_valid_i && cmd_ready_o),
    .data_i ({cmd_program_i, cmd_ones_i, cmd_count_i}),
    .full_o (queue_full),
    .valid_o(queue_valid),
    .data_o ({queue_program, queue_ones, queue_count}),
    .pop_i  (load)
  );

  assign cmd_ready_o  = !queue_full && !flush_i;
  assign line_ready_o = active_q && (program_q || (block_room_i && !add_ones_q));
  assign take         = line_ready_o && line_valid_i;
  assign last_part    = program_q || (part_q == PartBits'(Lines - 1));
  assign finish       = take && last_part && last_q;
  assign load         = queue_valid && (!active_q || finish) && !flush_i;
  assign add          = add_ones_q && block_room_i;

  assign program_we_o = take && program_q;
  assign block_push_o = push_q;
  assign block_o      = block_q;

  always_ff @(posedge clk_i) begin
    if (!rst_ni || flush_i) begin
      active_q   <= 1'b0;
      part_q     <= '0;
      push_q     <= 1'b0;
      add_ones_q <= 1'b0;
    end else begin
      if (load)        active_q <= 1'b1;
      else if (finish) active_q <= 1'b0;
      if (take) part_q <= last_part ? '0 : part_q + PartBits'(1);
      push_q <= (take && last_part && !program_q) || add;
      if (finish)   add_ones_q <= ones_q;
      else if (add) add_ones_q <= 1'b0;
    end
  end

  always_ff @(posedge clk_i) begin
    if (load) begin
      left_q    <= queue_count;
      last_q    <= queue_count == 32'd1;
      ones_q    <= queue_ones;
      program_q <= queue_program;
    end else if (take && last_part) begin
      left_q <= left_q - 32'd1;
      last_q <= left_q == 32'd2;
    end
    for (int unsigned i = 0; i < Lines; i++) begin
      if (add) block_q[i] <= '1;
      else if (take && part_q == PartBits'(i)) block_q[i] <= line_i;
    end
  end
endmodule
