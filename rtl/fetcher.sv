// SPDX-License-Identifier: Apache-2.0
//
// Asks for all data of a run in Program order: first the Program itself, then, walking the Program ahead of execution, what
// each instruction reads (docs/machine.md, "The stream"). How far it runs ahead is the FIFOs' business: a descriptor waits until
// the readers and the collector take it. An instruction waits for its `fence`; EXPERTS asks for its first `ahead` experts
// before. An instruction that instr_check refuses ends the walk: execution will stop there.
//
// One descriptor is a line address and a number of beats for every port, and the same amount in blocks (the Program: lines)
// for the collector. A slice of an expert is one descriptor a tile: one a cycle, while they are taken.
module fetcher (
  input  logic        clk_i,
  input  logic        rst_ni,
  input  logic        flush_i,             // back to idle

  input  logic        start_i,
  input  logic [63:0] memory_base_i,       // bases and stripes, program_addr_i and num_instructions_i hold during a run
  input  logic [63:0] input_base_i,
  input  logic [63:0] output_base_i,
  input  logic [31:0] memory_stripe_i,
  input  logic [31:0] input_stripe_i,
  input  logic [31:0] output_stripe_i,
  input  logic [31:0] program_addr_i,
  input  logic [15:0] num_instructions_i,  // > 0

  input  logic        program_loaded_i,    // the Program stands in the store
  output logic        req_o,
  output logic [15:0] index_o,
  input  logic        gnt_i,
  input  logic        valid_i,
  input  codesign_pkg::instr_t instr_i,

  input  logic [15:0] completed_i,         // instructions complete: all below are
  input  logic [codesign_pkg::MaxExperts-1:0][15:0] counts_i,

  output logic        desc_valid_o,
  input  logic        desc_ready_i,
  output logic [codesign_pkg::Ports-1:0][63:0] desc_addr_o,
  output logic [31:0] desc_beats_o,        // of each port
  output logic [31:0] desc_count_o,        // blocks, or lines of the Program
  output logic        desc_ones_o,         // a plane of ones follows
  output logic        desc_program_o,

  output logic [3:0]  state_o
);
  localparam int unsigned Ports      = codesign_pkg::Ports;
  localparam int unsigned Lines      = codesign_pkg::BlockLines;
  localparam int unsigned Experts    = codesign_pkg::MaxExperts;
  localparam int unsigned ExpertBits = (Experts > 1) ? $clog2(Experts) : 1;
  localparam int unsigned Records    = codesign_pkg::RecordBlocks;
  localparam int unsigned Planes     = 8;       // stored of a tile that is read in slices
  localparam int unsigned ProgramShift = $clog2(codesign_pkg::InstructionBeats) - $clog2(Ports);  // lines an instruction, log2

  typedef enum logic [3:0] {
    StIdle,
    StProgram,   // descriptor of the Program
    StLoaded,    // wait until it is stored
    StRequest,   // ask for an instruction
    StFetch,     // wait for it
    StCheck,     // is it legal
    StDecode,
    StFence,     // wait for what it reads
    StRun,       // one run of blocks
    StExpert,    // is this expert wanted, and how much of it
    StExpertRun, // all of it
    StSlice,     // the first planes of a tile
    StNext
  } state_t;

  state_t      state_q;
  logic [15:0] index_q;
  codesign_pkg::instr_t instr_q;
  logic        fetched_q, checked, legal, checked_q, legal_q;
  logic        fence_ok_q, emit, ready, last_instr_q;
  logic [31:0] lines_q;                          // lines of instr_q.blocks: beats of each port
  logic [31:0] line_q, expert_line_q;
  logic [7:0]  expert_q;
  logic [codesign_pkg::WidthBits*32-1:0] widths_q;   // of expert_q in the lowest bits
  logic [Experts-1:0] nonempty_q;
  logic        wanted, sliced, first_k_q, second_q, last_k, last_n, last_expert;
  logic [15:0] k_left_q, n_left_q;
  logic        four_planes;
  logic [5:0]  slice_blocks;                     // of one descriptor: blocks, their lines, lines to the next tile
  logic [15:0] slice_lines, slice_step;

  function automatic logic [31:0] to_lines(logic [31:0] blocks);   // shifts and sums: no multiplier
    to_lines = '0;
    for (int unsigned i = 0; i < 6; i++) begin
      if (((Lines >> i) & 1) != 0) to_lines = to_lines + (blocks << i);
    end
  endfunction

  assign state_o     = state_q;
  assign req_o       = state_q == StRequest;
  assign index_o     = index_q;
  assign last_expert = expert_q == instr_q.num_experts;
  assign wanted      = (expert_q < instr_q.ahead) || nonempty_q[expert_q[ExpertBits-1:0]];
  assign sliced      = widths_q[codesign_pkg::WidthBits-1:0] != codesign_pkg::WidthStored;
  assign last_k      = k_left_q == 16'd1;
  assign last_n      = n_left_q == 16'd1;

  // The records of an n tile stand before its first weight tile: one descriptor for both.
  assign four_planes = widths_q[codesign_pkg::WidthBits-1:0] == codesign_pkg::WidthSlice4;
  always_comb begin
    unique case ({first_k_q, four_planes})
      2'b00: slice_blocks = 6'd2;
      2'b01: slice_blocks = 6'd4;
      2'b10: slice_blocks = 6'(Records + 2);
      2'b11: slice_blocks = 6'(Records + 4);
    endcase
    unique case ({first_k_q, four_planes})
      2'b00: slice_lines = 16'(2 * Lines);
      2'b01: slice_lines = 16'(4 * Lines);
      2'b10: slice_lines = 16'((Records + 2) * Lines);
      2'b11: slice_lines = 16'((Records + 4) * Lines);
    endcase
    slice_step = first_k_q ? 16'((Records + Planes) * Lines) : 16'(Planes * Lines);
  end

  instr_check u_check (
    .clk_i,
    .rst_ni (rst_ni && !flush_i),
    .start_i(fetched_q),
    .instr_i(instr_q),
    .done_o (checked),
    .legal_o(legal)
  );

  // ---- the walk ----
  always_ff @(posedge clk_i) begin
    if (!rst_ni || flush_i) begin
      state_q   <= StIdle;
      fetched_q <= 1'b0;
      checked_q <= 1'b0;
    end else begin
      fetched_q <= (state_q == StFetch) && valid_i;
      checked_q <= checked;
      unique case (state_q)
        StIdle:    if (start_i) state_q <= StProgram;
        StProgram: if (ready) state_q <= StLoaded;
        StLoaded:  if (program_loaded_i) state_q <= StRequest;
        StRequest: if (gnt_i) state_q <= StFetch;
        StFetch:   if (valid_i) state_q <= StCheck;
        StCheck:   if (checked_q) state_q <= legal_q ? StDecode : StIdle;
        StDecode:
          unique case (instr_q.opcode)
            codesign_pkg::OpStore, codesign_pkg::OpAttention: state_q <= StNext;
            codesign_pkg::OpExperts:                          state_q <= StExpert;
            default:                                          state_q <= StFence;
          endcase
        StFence:   if (fence_ok_q) state_q <= StRun;
        StRun:     if (ready) state_q <= StNext;
        StExpert:
          if (last_expert)                                           state_q <= StNext;
          else if (wanted && (expert_q < instr_q.ahead || fence_ok_q)) state_q <= sliced ? StSlice : StExpertRun;
        StExpertRun: if (ready) state_q <= StExpert;
        StSlice:     if (ready && last_k && last_n && second_q) state_q <= StExpert;
        StNext:      state_q <= last_instr_q ? StIdle : StRequest;
        default:     state_q <= StIdle;
      endcase
    end
  end

  logic skip, next_expert;
  assign skip        = (state_q == StExpert) && !last_expert && !wanted && fence_ok_q;
  assign next_expert = skip || ((state_q == StExpertRun) && ready) ||
                       ((state_q == StSlice) && ready && last_k && last_n && second_q);

  always_ff @(posedge clk_i) begin
    legal_q      <= legal;
    lines_q      <= to_lines(instr_q.blocks);
    fence_ok_q   <= completed_i >= instr_q.fence;
    last_instr_q <= index_q == num_instructions_i - 16'd1;
    for (int unsigned e = 0; e < Experts; e++) nonempty_q[e] <= counts_i[e] != 16'd0;

    if (state_q == StIdle)      index_q <= 16'd0;
    else if (state_q == StNext) index_q <= index_q + 16'd1;

    if (state_q == StFetch && valid_i) instr_q <= instr_i;

    if (state_q == StDecode) begin
      expert_q      <= 8'd0;
      widths_q      <= instr_q.widths;
      expert_line_q <= instr_q.mem_addr;
    end else if (next_expert) begin
      expert_q      <= expert_q + 8'd1;
      widths_q      <= widths_q >> codesign_pkg::WidthBits;
      expert_line_q <= expert_line_q + lines_q;
    end

    if (state_q == StExpert) begin
      line_q    <= expert_line_q;
      first_k_q <= 1'b1;
      second_q  <= 1'b0;
      k_left_q  <= instr_q.k_words;
      n_left_q  <= instr_q.n_tiles;
    end else if (state_q == StSlice && ready) begin
      line_q    <= line_q + 32'(slice_step);
      first_k_q <= last_k;
      k_left_q  <= k_left_q - 16'd1;
      if (last_k) begin
        n_left_q <= n_left_q - 16'd1;
        k_left_q <= second_q ? instr_q.k_words2 : instr_q.k_words;
        if (last_n) begin
          second_q <= 1'b1;
          k_left_q <= instr_q.k_words2;
          n_left_q <= instr_q.n_tiles2;
        end
      end
    end
  end

  // ---- descriptors: line address, byte address of port 0, byte addresses of all ports ----
  typedef struct packed {
    logic        program_lines;
    logic        ones;
    logic [31:0] count;
    logic [31:0] beats;
  } amount_t;

  logic        valid_a_q, valid_b_q, valid_c_q, valid_d_q, ready_b, ready_c, ready_d;
  amount_t     amount, amount_a_q, amount_b_q, amount_c_q, amount_d_q;
  logic [1:0]  space_a_q;
  logic [31:0] line, line_a_q, stripe_b_q, stripe_c_q;
  logic [33:0] stripe3_c_q;
  logic [63:0] addr_b_q, addr_c_q;
  logic [Ports-1:0][63:0] addr_d_q;

  assign emit    = (state_q == StProgram) || (state_q == StRun) || (state_q == StExpertRun) || (state_q == StSlice);
  assign ready_d = !valid_d_q || desc_ready_i;
  assign ready_c = !valid_c_q || ready_d;
  assign ready_b = !valid_b_q || ready_c;
  assign ready   = !valid_a_q || ready_b;

  always_comb begin
    amount.program_lines = 1'b0;
    amount.ones  = 1'b0;
    amount.count = instr_q.blocks;
    amount.beats = lines_q;
    line         = (state_q == StExpertRun) ? line_q : instr_q.mem_addr;
    unique case (state_q)
      StProgram: begin
        amount.program_lines = 1'b1;
        amount.count = 32'(num_instructions_i) << ProgramShift;
        amount.beats = 32'(num_instructions_i) << ProgramShift;
        line         = program_addr_i;
      end
      StSlice: begin
        amount.ones  = 1'b1;
        amount.count = 32'(slice_blocks);
        amount.beats = 32'(slice_lines);
        line         = line_q;
      end
      default: ;
    endcase
  end

  always_ff @(posedge clk_i) begin
    if (!rst_ni || flush_i) begin
      valid_a_q <= 1'b0;
      valid_b_q <= 1'b0;
      valid_c_q <= 1'b0;
      valid_d_q <= 1'b0;
    end else begin
      if (ready)   valid_a_q <= emit;
      if (ready_b) valid_b_q <= valid_a_q;
      if (ready_c) valid_c_q <= valid_b_q;
      if (ready_d) valid_d_q <= valid_c_q;
    end
  end

  always_ff @(posedge clk_i) begin
    if (ready) begin
      amount_a_q <= amount;
      line_a_q   <= line;
      space_a_q  <= (state_q == StProgram || instr_q.opcode != codesign_pkg::OpLoad) ? codesign_pkg::SpaceMemory : instr_q.space;
    end
    if (ready_b) begin
      amount_b_q <= amount_a_q;
      unique case (space_a_q)
        codesign_pkg::SpaceMemory: begin
          addr_b_q   <= memory_base_i + {28'd0, line_a_q, 4'd0};
          stripe_b_q <= memory_stripe_i;
        end
        codesign_pkg::SpaceInput: begin
          addr_b_q   <= input_base_i + {28'd0, line_a_q, 4'd0};
          stripe_b_q <= input_stripe_i;
        end
        default: begin
          addr_b_q   <= output_base_i + {28'd0, line_a_q, 4'd0};
          stripe_b_q <= output_stripe_i;
        end
      endcase
    end
    if (ready_c) begin
      amount_c_q  <= amount_b_q;
      addr_c_q    <= addr_b_q;
      stripe_c_q  <= stripe_b_q;
      stripe3_c_q <= {2'd0, stripe_b_q} + {1'b0, stripe_b_q, 1'b0};
    end
    if (ready_d) begin
      amount_d_q <= amount_c_q;
      for (int unsigned m = 0; m < Ports; m++) begin
        unique case (m)
          0:       addr_d_q[m] <= addr_c_q;
          1:       addr_d_q[m] <= addr_c_q + {32'd0, stripe_c_q};
          2:       addr_d_q[m] <= addr_c_q + {31'd0, stripe_c_q, 1'b0};
          default: addr_d_q[m] <= addr_c_q + {30'd0, stripe3_c_q};
        endcase
      end
    end
  end

  assign desc_valid_o   = valid_d_q;
  assign desc_addr_o    = addr_d_q;
  assign desc_beats_o   = amount_d_q.beats;
  assign desc_count_o   = amount_d_q.count;
  assign desc_ones_o    = amount_d_q.ones;
  assign desc_program_o = amount_d_q.program_lines;

  logic unused;
  assign unused = ^{expert_q, stripe_c_q, stripe3_c_q, instr_q};
endmodule
