// SPDX-License-Identifier: Apache-2.0
//
// Test bench of the compute units: unified_unit, norm_unit and router on the memories they share. Python fills and reads the
// memories while the units rest, starts a unit and feeds the stream.
module tb_units (
  input  logic         clk                                /* verilator public_flat_rw */,
  input  logic         rst_n                              /* verilator public_flat_rw */,
  // memories: one access a cycle, read data two cycles later
  input  logic [1:0]   host_memory                        /* verilator public_flat_rw */,  // 0 ACT, 1 RES, 2 QUEUE
  input  logic         host_we                            /* verilator public_flat_rw */,
  input  logic         host_ren                           /* verilator public_flat_rw */,
  input  logic [15:0]  host_addr                          /* verilator public_flat_rw */,
  input  logic [codesign_pkg::Simd*16-1:0] host_wdata     /* verilator public_flat_rw */,
  output logic [codesign_pkg::Simd*16-1:0] host_rdata     /* verilator public_flat_rd */,
  // stream
  input  logic [127:0] beat                               /* verilator public_flat_rw */,
  input  logic         beat_valid                         /* verilator public_flat_rw */,
  output logic         beat_ready                         /* verilator public_flat_rd */,
  // one pass of the unified unit
  input  logic         pass_valid                         /* verilator public_flat_rw */,
  output logic         pass_ready                         /* verilator public_flat_rd */,
  output logic         pass_done                          /* verilator public_flat_rd */,
  input  logic [1:0]   pass_kind                          /* verilator public_flat_rw */,
  input  logic [3:0]   pass_post                          /* verilator public_flat_rw */,
  input  logic         pass_ternary                       /* verilator public_flat_rw */,
  input  logic         pass_queued                        /* verilator public_flat_rw */,
  input  logic [15:0]  pass_queue_base                    /* verilator public_flat_rw */,
  input  logic [15:0]  pass_rows                          /* verilator public_flat_rw */,
  input  logic [15:0]  pass_k_words                       /* verilator public_flat_rw */,
  input  logic [15:0]  pass_n_tiles                       /* verilator public_flat_rw */,
  input  logic [15:0]  pass_src_base                      /* verilator public_flat_rw */,
  input  logic [15:0]  pass_src_stride                    /* verilator public_flat_rw */,
  input  logic [15:0]  pass_kv_base                       /* verilator public_flat_rw */,
  input  logic [15:0]  pass_dst_base                      /* verilator public_flat_rw */,
  input  logic [15:0]  pass_dst_stride                    /* verilator public_flat_rw */,
  input  logic [15:0]  pass_column                        /* verilator public_flat_rw */,
  input  logic [15:0]  pass_dim                           /* verilator public_flat_rw */,
  input  logic [15:0]  pass_multiplier                    /* verilator public_flat_rw */,
  input  logic [5:0]   pass_shift                         /* verilator public_flat_rw */,
  // norm unit and router, with the fields of pass_* they share: rows, n_tiles, src, dst, dim, shift
  input  logic         norm_start                         /* verilator public_flat_rw */,
  output logic         norm_done                          /* verilator public_flat_rd */,
  input  logic         stream_to_norm                     /* verilator public_flat_rw */,
  input  logic         route_start                        /* verilator public_flat_rw */,
  output logic         route_done                         /* verilator public_flat_rd */,
  input  logic [7:0]   num_experts                        /* verilator public_flat_rw */,
  input  logic [7:0]   top_k                              /* verilator public_flat_rw */,
  output logic [codesign_pkg::MaxExperts*16-1:0] counts   /* verilator public_flat_rd */
);

  localparam int unsigned Simd = codesign_pkg::Simd;
  localparam int unsigned Pe = codesign_pkg::Pe;
  localparam int unsigned ActAddrBits = codesign_pkg::ActAddrBits;
  localparam int unsigned ResAddrBits = codesign_pkg::ResAddrBits;
  localparam int unsigned QueueAddrBits = codesign_pkg::QueueAddrBits;

  codesign_pkg::pass_t  pass;
  codesign_pkg::instr_t instr;

  always_comb begin
    pass.kind = codesign_pkg::pass_kind_t'(pass_kind);
    pass.post = codesign_pkg::pass_post_t'(pass_post);
    pass.ternary = pass_ternary;
    pass.queued = pass_queued;
    pass.queue_base = QueueAddrBits'(pass_queue_base);
    pass.rows = pass_rows;
    pass.k_words = pass_k_words;
    pass.n_tiles = pass_n_tiles;
    pass.src_base = pass_src_base;
    pass.src_stride = pass_src_stride;
    pass.kv_base = pass_kv_base;
    pass.dst_base = pass_dst_base;
    pass.dst_stride = pass_dst_stride;
    pass.column = pass_column;
    pass.dim = pass_dim;
    pass.multiplier = pass_multiplier;
    pass.shift = pass_shift;
    instr = '0;
    instr.rows = pass_rows;
    instr.n_tiles = pass_n_tiles;
    instr.src_base = pass_src_base;
    instr.src_stride = pass_src_stride;
    instr.dst_base = pass_dst_base;
    instr.dst_stride = pass_dst_stride;
    instr.dim = pass_dim;
    instr.shift = 8'(pass_shift);
  end

  logic                     act_a_ren, act_b_ren, res_ren, queue_ren, norm_res_ren;
  logic [ActAddrBits-1:0]   act_a_addr, act_b_addr, act_waddr, norm_act_waddr;
  logic [Simd-1:0][7:0]     act_a_data, act_b_data, act_wdata, norm_act_wdata;
  logic [Simd-1:0]          act_we, norm_act_we;
  logic [ResAddrBits-1:0]   res_raddr, res_waddr, norm_res_raddr;
  logic [Pe-1:0][15:0]      res_rdata, res_wdata, logits;
  logic                     res_we, logits_valid, queue_we;
  logic [QueueAddrBits-1:0] queue_addr, queue_waddr;
  logic [31:0]              queue_rdata, queue_wdata;
  logic                     unified_beat_ready, norm_beat_ready;
  logic [codesign_pkg::RowBits-1:0] logits_row;
  logic                     host_act, host_res, host_queue;

  assign host_act = host_memory == 2'd0;
  assign host_res = host_memory == 2'd1;
  assign host_queue = host_memory == 2'd2;
  assign beat_ready = stream_to_norm ? norm_beat_ready : unified_beat_ready;

  unified_unit u_unified (
    .clk_i(clk), .rst_ni(rst_n), .pass_i(pass), .pass_valid_i(pass_valid), .pass_ready_o(pass_ready), .done_o(pass_done),
    .beat_i(beat), .beat_valid_i(beat_valid && !stream_to_norm), .beat_ready_o(unified_beat_ready),
    .act_a_ren_o(act_a_ren), .act_a_addr_o(act_a_addr), .act_a_data_i(act_a_data),
    .act_b_ren_o(act_b_ren), .act_b_addr_o(act_b_addr), .act_b_data_i(act_b_data),
    .act_we_o(act_we), .act_waddr_o(act_waddr), .act_wdata_o(act_wdata),
    .res_ren_o(res_ren), .res_raddr_o(res_raddr), .res_rdata_i(res_rdata),
    .res_we_o(res_we), .res_waddr_o(res_waddr), .res_wdata_o(res_wdata),
    .queue_ren_o(queue_ren), .queue_addr_o(queue_addr), .queue_rdata_i(queue_rdata),
    .logits_valid_o(logits_valid), .logits_row_o(logits_row), .logits_o(logits)
  );

  norm_unit u_norm (
    .clk_i(clk), .rst_ni(rst_n), .start_i(norm_start), .instr_i(instr), .done_o(norm_done),
    .beat_i(beat), .beat_valid_i(beat_valid && stream_to_norm), .beat_ready_o(norm_beat_ready),
    .res_ren_o(norm_res_ren), .res_raddr_o(norm_res_raddr), .res_rdata_i(res_rdata),
    .act_we_o(norm_act_we), .act_waddr_o(norm_act_waddr), .act_wdata_o(norm_act_wdata)
  );

  router u_router (
    .clk_i(clk), .rst_ni(rst_n), .start_i(route_start), .rows_i(pass_rows), .num_experts_i(num_experts), .top_k_i(top_k),
    .done_o(route_done), .logits_valid_i(logits_valid), .logits_row_i(logits_row), .logits_i(logits),
    .queue_we_o(queue_we), .queue_waddr_o(queue_waddr), .queue_wdata_o(queue_wdata), .counts_o(counts)
  );

  sdp_ram #(.Width(Simd * 8), .Depth(codesign_pkg::ActWords), .WriteLanes(Simd)) u_act_a (
    .clk_i(clk),
    .we_i(act_we | norm_act_we | {Simd{host_we && host_act}}),
    .waddr_i(host_we ? ActAddrBits'(host_addr) : |norm_act_we ? norm_act_waddr : act_waddr),
    .wdata_i(host_we ? host_wdata[Simd*8-1:0] : |norm_act_we ? norm_act_wdata : act_wdata),
    .ren_i(act_a_ren || host_ren), .raddr_i(host_ren ? ActAddrBits'(host_addr) : act_a_addr), .rdata_o(act_a_data)
  );

  sdp_ram #(.Width(Simd * 8), .Depth(codesign_pkg::ActWords), .WriteLanes(Simd)) u_act_b (
    .clk_i(clk),
    .we_i(act_we | norm_act_we | {Simd{host_we && host_act}}),
    .waddr_i(host_we ? ActAddrBits'(host_addr) : |norm_act_we ? norm_act_waddr : act_waddr),
    .wdata_i(host_we ? host_wdata[Simd*8-1:0] : |norm_act_we ? norm_act_wdata : act_wdata),
    .ren_i(act_b_ren), .raddr_i(act_b_addr), .rdata_o(act_b_data)
  );

  sdp_ram #(.Width(Pe * 16), .Depth(codesign_pkg::ResWords)) u_res (
    .clk_i(clk),
    .we_i(res_we || (host_we && host_res)),
    .waddr_i(host_we ? ResAddrBits'(host_addr) : res_waddr), .wdata_i(host_we ? host_wdata[Pe*16-1:0] : res_wdata),
    .ren_i(res_ren || norm_res_ren || host_ren),
    .raddr_i(host_ren ? ResAddrBits'(host_addr) : norm_res_ren ? norm_res_raddr : res_raddr), .rdata_o(res_rdata)
  );

  sdp_ram #(.Width(32), .Depth(codesign_pkg::QueueWords)) u_queue (
    .clk_i(clk),
    .we_i(queue_we || (host_we && host_queue)),
    .waddr_i(host_we ? QueueAddrBits'(host_addr) : queue_waddr), .wdata_i(host_we ? host_wdata[31:0] : queue_wdata),
    .ren_i(queue_ren || host_ren), .raddr_i(host_ren ? QueueAddrBits'(host_addr) : queue_addr), .rdata_o(queue_rdata)
  );

  always_comb begin
    host_rdata = '0;
    if (host_act) host_rdata[Simd*8-1:0] = act_a_data;
    if (host_res) host_rdata[Pe*16-1:0] = res_rdata;
    if (host_queue) host_rdata[31:0] = queue_rdata;
  end

endmodule
